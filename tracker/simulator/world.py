"""Everything that one simulator remembers and is told: clock, lives, counts, and the conditions that tests set."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tracker.simulator.clock import Clock
from tracker.simulator.messages import BadRequestError, Reply, Request
from tracker.simulator.misbehaviour import MISBEHAVIOURS, Misbehaviour, Scope
from tracker.simulator.script import Lives
from tracker.simulator.stats import Stats

BATCH_SHAPES = ("array", "envelope", "none")
_OUTAGES = ("http502", "http503", "reset", "hang")


@dataclass(slots=True)
class Conditions:
    """How the whole relay behaves at this moment."""

    key: str = ""  # empty: any non-empty bearer is accepted
    batch: str = BATCH_SHAPES[0]
    spoil_batch: bool = False  # whether one id's misbehaviour spoils a whole batch answer, or only leaves the id out
    not_found: int = 400
    latency_ms: float = 0.0
    rates: dict[str, float] = field(default_factory=dict)
    outage: str = ""
    outage_ends: float | None = None

    def changed(self, fields: Mapping[str, Any], now: float) -> Conditions:
        """These conditions with the caller's changes; raises BadRequestError on what is not known."""
        wanted = dict(fields)
        seconds = wanted.pop("seconds", None)
        if seconds is not None and not _number(seconds):
            raise BadRequestError("seconds must be a number, not below 0")
        if not wanted.keys() <= {"batch", "spoil_batch", "not_found", "latency_ms", "rates", "outage"}:
            raise BadRequestError(f"unknown fields among {', '.join(wanted)}")
        if "outage" in wanted:
            wanted["outage"] = wanted["outage"] or ""
            wanted["outage_ends"] = None if seconds is None else now + float(seconds)
        found = replace(self, **wanted)
        found.check()
        return found

    def check(self) -> None:
        """Raise BadRequestError that names the first wrong field."""
        rates: object = self.rates  # what a caller sent may be anything
        good = isinstance(rates, dict) and all(name in MISBEHAVIOURS and _number(rate) for name, rate in rates.items())
        wrong = {
            f"batch must be one of {', '.join(BATCH_SHAPES)}": self.batch not in BATCH_SHAPES,
            "not_found must be 400 or 404": self.not_found not in {400, 404},
            f"outage must be one of {', '.join(_OUTAGES)}, or null": self.outage not in {"", *_OUTAGES},
            "latency_ms must be a number, not below 0": not _number(self.latency_ms),
            "rates must be an object of known misbehaviours and their shares, together at most 1": not good
            or sum(self.rates.values()) > 1,
        }
        for message, found in wrong.items():
            if found:
                raise BadRequestError(message)


def _number(value: object) -> bool:
    return isinstance(value, int | float) and value >= 0


class World:
    """The simulator's whole memory."""

    def __init__(self, *, seed: int, speed: float, failures: float, conditions: Conditions) -> None:
        self.clock = Clock()
        self.stats = Stats()
        self.lives = Lives(self.clock, seed, speed, failures)
        self.conditions = conditions
        self.answers: dict[str, Reply] = {}
        self._seed, self._first_conditions = seed, conditions
        self._dice = random.Random(seed)  # noqa: S311 - repeatable faults, nothing secret

    def reset(self) -> None:
        """As just started, the clock included. Ids keep their story."""
        self.clock.reset()
        self.stats.reset()
        self.lives.reset()
        self.answers.clear()
        self.conditions = self._first_conditions
        self._dice.seed(self._seed)

    def drawn(self, *scopes: Scope) -> Misbehaviour | None:
        """What the set rates let happen this time, among these scopes."""
        roll, reached = (self._dice.random() if self.conditions.rates else 1.0), 0.0
        for name, rate in self.conditions.rates.items():
            if MISBEHAVIOURS[name].scope in scopes:
                reached += rate
                if roll < reached:
                    return MISBEHAVIOURS[name]
        return None

    def outage(self) -> Misbehaviour | None:
        """What every request meets while the relay is down."""
        conditions = self.conditions
        if not conditions.outage or (conditions.outage_ends is not None and self.clock.now() >= conditions.outage_ends):
            return None
        return MISBEHAVIOURS[conditions.outage]

    def spoilt(self, kind: Misbehaviour, good: Reply, seconds: float | None = None) -> Reply:
        """What `kind` makes of a good reply, counted."""
        self.stats.spoilt[kind.name] += 1
        return kind.spoil(good, kind.seconds if seconds is None else seconds) if kind.spoil else good

    def permits(self, request: Request) -> bool:
        return bool(request.bearer) and self.conditions.key in {"", request.bearer}
