"""A generation's life: how long it queues and runs, what goes wrong, and which state it is in at a given moment.

All of it follows from the task id and the clock; only prompts and free-text reasons are remembered, and are lost by a restart.
"""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import dataclass
from functools import lru_cache

from tracker.simulator import ids
from tracker.simulator.clock import Clock
from tracker.simulator.messages import BadRequestError
from tracker.simulator.misbehaviour import MISBEHAVIOURS, Misbehaviour

# Luma Ray2 as published: mean 111 s, half within 96 s, 95 % within about 200 s (a queue, a lognormal generation, a slow tail).
_QUEUE_MEAN = 24.0
_GENERATION_MEDIAN, _GENERATION_SIGMA = 74.0, 0.22
_TAIL_SHARE, _TAIL_FACTORS = 0.03, (3.0, 8.0)

REASONS = (
    "generation failed: internal error",
    "content moderation: the prompt was flagged as unsafe",
    "content moderation: the image was flagged as unsafe",
    "invalid input: the image could not be read",
    "generation failed: no capacity",
    "generation failed: frames could not be encoded",
    "the task expired before it was started",
)
MODERATION = REASONS[1]

_FAILING = {"failed", "failreason", "statereason", "errormessage", "moderated", "mute"}
_ID = re.compile(r"([a-z0-9]+)((?:_(?:\d+x|\d+(?:\.\d+)?s|always))*)-(.+)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Fault:
    """A misbehaviour with its strength for one generation. `always` means without end, however it is limited otherwise."""

    kind: Misbehaviour
    times: int | None
    seconds: float
    always: bool = False

    def strikes(self, before: int, age: float) -> bool:
        """Whether it hits the next answer, when `before` were given already and the generation is `age` seconds old."""
        if self.always:
            return True
        if self.kind.window:
            return age < self.seconds
        return self.times is None or before < self.times


@dataclass(frozen=True, slots=True)
class Script:
    """All there is to know about one generation."""

    task_id: str
    birth: ids.Birth
    fault: Fault | None = None

    @property
    def ends_at(self) -> float:
        return self.birth.start + self.birth.queue + (0.0 if self.has("moderated") else self.birth.duration)

    def has(self, name: str) -> bool:
        return self.fault is not None and self.fault.kind.name == name

    @property
    def fails(self) -> bool:
        return self.birth.reason > 0 or (self.fault is not None and self.fault.kind.name in _FAILING)

    def over(self, now: float) -> bool:
        return now >= self.ends_at and not self.has("neverends")

    def state(self, now: float) -> str:
        """The provider's word at this moment."""
        if now < self.birth.start + self.birth.queue:
            return "pending"
        if self.has("unknown") and self.fault and (self.fault.always or not self.over(now)):
            return "reticulating"
        if self.over(now):
            return "failed" if self.fails else "completed"
        third = self.birth.duration / 3
        back = self.has("backwards") and third <= now - self.birth.start - self.birth.queue < 2 * third
        return "pending" if back else "processing"


@dataclass(slots=True)
class Wish:
    """What a submit asks for; what is None is drawn. Times in seconds, `age` how long ago it shall have been submitted."""

    queue: float | None = None
    duration: float | None = None
    age: float = 0.0
    misbehaviour: str = ""
    fail_reason: str = ""
    prompt: str = ""
    aspect_ratio: str = ids.ASPECT_RATIOS[0]


class Lives:
    """Births by submit and finds by id. Drawn durations depend on the seed and the number of the submit alone."""

    def __init__(self, clock: Clock, seed: int, speed: float, failures: float) -> None:
        self._clock, self._seed, self._speed, self._failures = clock, seed, speed, failures
        self.reset()

    def reset(self) -> None:
        self._sequence = itertools.count()
        self._first_seen: dict[str, ids.Birth] = {}
        self._wishes: dict[str, Wish] = {}

    def submit(self, wish: Wish) -> Script:
        """A new generation, submitted `wish.age` seconds ago; BadRequestError if it cannot be."""
        if wish.aspect_ratio not in ids.ASPECT_RATIOS:
            raise BadRequestError(f"aspect_ratio must be one of {', '.join(ids.ASPECT_RATIOS)}")
        fault = wish.misbehaviour or ("failed" if wish.fail_reason else "")
        sequence = next(self._sequence)
        birth = self._draw(f"{self._seed}:{sequence}", wish, sequence)
        task_id = f"{fault}-{ids.encode(birth)}" if fault else ids.encode(birth)
        script = read(task_id)
        if script is None or (fault and script.fault is None):
            raise BadRequestError(f"no misbehaviour {fault[:80]!r}; `python -m tracker.simulator --list` prints them")
        if wish.prompt or wish.fail_reason:
            self._wishes[task_id] = wish
        return script

    def find(self, task_id: str) -> Script | None:
        """The script of this id, or None for an unknown one. An id that is only a prefix and a name is born when first asked about."""
        script = read(task_id)
        if script is not None:
            return script
        fault, tail = split(task_id)
        if fault is None:
            return None
        birth = self._first_seen.get(task_id)
        if birth is None:
            birth = self._first_seen[task_id] = self._draw(f"{self._seed}:{tail}", Wish())
        return Script(task_id, birth, fault)

    def prompt(self, task_id: str) -> str:
        wish = self._wishes.get(task_id)
        return wish.prompt if wish else ""

    def reason(self, script: Script) -> str:
        """Why it failed, in the provider's words."""
        wish = self._wishes.get(script.task_id)
        if wish and wish.fail_reason:
            return wish.fail_reason
        return MODERATION if script.has("moderated") else REASONS[script.birth.reason - 1 if script.birth.reason else 0]

    def _draw(self, seed: str, wish: Wish, sequence: int = 0) -> ids.Birth:
        dice = random.Random(seed)  # noqa: S311 - a repeatable life, nothing secret
        queue = dice.expovariate(1 / _QUEUE_MEAN) / self._speed
        generation = dice.lognormvariate(0, _GENERATION_SIGMA) * _GENERATION_MEDIAN / self._speed
        if dice.random() < _TAIL_SHARE:
            generation *= dice.uniform(*_TAIL_FACTORS)
        fails = dice.random() < self._failures
        return ids.Birth(
            start=self._clock.now() - wish.age,
            queue=queue if wish.queue is None and wish.duration is None else wish.queue or 0.0,
            duration=generation if wish.duration is None else wish.duration,
            aspect_ratio=wish.aspect_ratio,
            reason=dice.randint(1, len(REASONS)) if fails and wish.duration is None else 0,
            sequence=sequence,
        )


@lru_cache(maxsize=65_536)
def read(task_id: str) -> Script | None:
    """What an id says of itself, or None if it does not hold a birth of ours."""
    birth = ids.decode(task_id)
    if birth is not None:
        return Script(task_id, birth)
    fault, tail = split(task_id)
    birth = ids.decode(tail) if fault else None
    return Script(task_id, birth, fault) if birth else None


def split(task_id: str) -> tuple[Fault | None, str]:
    """The misbehaviour that an id's prefix names (`slow_2x_30s-...`), and what follows it."""
    found = _ID.fullmatch(task_id)
    kind = MISBEHAVIOURS.get(found[1]) if found else None
    if found is None or kind is None:
        return None, task_id
    times, seconds, always = kind.times, kind.seconds, False
    for option in filter(None, found[2].split("_")):
        if option == "always":
            always = True
        elif option.endswith("x"):
            times = int(option[:-1])
        else:
            seconds = float(option[:-1])
    return Fault(kind, times, seconds, always), found[3]
