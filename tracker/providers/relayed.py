"""An answer as relays wrap it: `{code, message, data}` around their own record of the task, around what the provider said.

Any of the three may be missing. The objects are called layers, the innermost first. A provider adds its words and where its files stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tracker.core.generation import Output, State
from tracker.core.lifecycle import FINAL
from tracker.core.observation import Observation, Problem, ProblemCode, Seen
from tracker.core.times import provider_time
from tracker.providers import fields, reading, words
from tracker.providers.base import Response, Subject

Node = Mapping[str, Any]

_BAD_ENDS = frozenset({State.FAILED, State.CANCELLED})
_OF_THE_ACCOUNT = (ProblemCode.UNAUTHORIZED, ProblemCode.OUT_OF_QUOTA, ProblemCode.RATE_LIMITED)
"""Problems that every question of this credential would meet."""


@dataclass(frozen=True, slots=True)
class Form:
    """A provider's own layer: the names of its fields, the most telling first, and how its files are read once it has completed."""

    outputs: Callable[[Sequence[Node]], tuple[Output, ...]]
    statuses: tuple[str, ...] = ("state", "status")
    reasons: tuple[str, ...] = ("failure_reason", "fail_reason", "state_reason")
    codes: tuple[str, ...] = ("failure_code",)
    started: str = "start_time"
    whole: int = 100
    """What `progress` counts up to where it is a whole number."""
    depth: int = 3
    """Objects inside one another, the envelope included."""
    alone: Callable[[Any], Any] = lambda item: item
    """An item of a batch answer as the single query would have shown it."""
    own_id: bool = True
    """Whether an answer calls the task by the id that was asked about, or not at all."""

    def read(self, subject: Subject, response: Response) -> Observation:
        """The observation of one generation; an answer about another one is a problem."""
        body = reading.answer(response)
        return body if isinstance(body, Problem) else self.read_body(subject.task_id, body)

    def read_body(self, task_id: str, body: Any) -> Observation:
        """The same from the JSON of an answer."""
        found = layers(body, self.depth)
        if self.own_id and not (
            found and found[0].get("id") == task_id
        ):  # most answers say whom they are about in this place
            said = ids(found)
            if said and task_id not in said:
                return Problem(
                    ProblemCode.UNREADABLE, f"the answer is about another task, {fields.clean(said[0], 100)!r}"
                )
        word = self._status(found)
        if word is None:
            return reading.complaint(body)
        state = words.state_of(word)
        if isinstance(state, Problem):
            return state
        return Seen(
            status=fields.clean(word, words.LONGEST_STATUS),
            state=state,
            progress=fields.progress(_first(found, "progress"), whole=self.whole),
            # What is shown before the end is a preview at best, and most answers are about pending ones.
            outputs=(self.outputs(found) or linked(found)) if state is State.COMPLETED else (),
            error=words.failure(state, word, self._reason(found), self._code(found)) if state in _BAD_ENDS else None,
            raw=body,
            started_at=provider_time(_first(found, self.started)),
        )

    def read_batch(self, subjects: Sequence[Subject], response: Response) -> Mapping[str, Observation] | None:
        """An array of generations, or an envelope whose `data` is an array of records.

        Whatever the batch path alone may have got wrong leaves ids out, so that they are asked singly.
        """
        body = reading.answer(response)
        asked = dict.fromkeys(subject.task_id for subject in subjects)
        if isinstance(body, Problem):
            return _without_batch(body, response, asked)
        items = body if isinstance(body, list) else fields.mapping(body).get("data")
        if not isinstance(items, list):
            refused = reading.complaint(body)
            return dict.fromkeys(asked, refused) if refused.code in _OF_THE_ACCOUNT else {}
        seen: dict[str, Observation] = {}
        for item in items:
            own = item.get("id") if isinstance(item, dict) else None
            # Most say whom they are about in this place.
            named = (own,) if isinstance(own, str) and own in asked else ids(layers(item, self.depth))
            for task_id in filter(asked.__contains__, named):
                if task_id not in seen:
                    one = seen[task_id] = self.read_body(task_id, item)
                    if isinstance(one, Seen):
                        one.raw = self.alone(item)
        return seen

    def _status(self, found: Sequence[Node]) -> str | None:
        """The generation's own word, unless only the relay's record says that it ended (it refunds, and stops passing answers on)."""
        if len(found) == 1 and "status" not in found[0]:
            word = found[0].get(self.statuses[0])
            return word if isinstance(word, str) else None
        spoken = (_spoken(node, name) for node in found for name in self.statuses)
        said = [word for word in spoken if isinstance(word, str)]
        return min(said, key=_doubt) if len(said) > 1 else said[0] if said else None

    def _reason(self, found: Sequence[Node]) -> str | None:
        errors = (
            error if isinstance(error, str) else fields.mapping(error).get("message")
            for error in values(found, "error")
        )
        stated = (*(value for name in self.reasons for value in values(found, name)), *errors)
        said = (fields.text(value) for value in stated if fields.url(value) is None)
        return next((reason for reason in said if reason is not None), None)

    def _code(self, found: Sequence[Node]) -> str | None:
        errors = (fields.mapping(error).get("code") for error in values(found, "error"))
        stated = (*(value for name in self.codes for value in values(found, name)), *errors)
        return next((code for value in stated if (code := fields.text(value)) is not None), None)


def layers(body: Any, depth: int = 3) -> list[Node]:
    """The objects of an answer that speak about the generation, innermost first: its own, then the relay's record around it."""
    if isinstance(body, dict) and not isinstance(body.get("data"), dict):
        return [body]  # bare, as nearly all come
    found: list[Node] = []
    node = body
    while isinstance(node, dict) and len(found) < depth:
        found.insert(0, node)
        node = node.get("data")
    return [node for node in found if node is found[0] or "task_id" in node or "state" in node]


def ids(found: Sequence[Node]) -> list[str]:
    """Every id by which these layers call the task, the caller's own included."""
    given = (node.get(name) for node in found for name in ("task_id", "id", "external_id"))
    chosen = (fields.mapping(node.get("task_info")).get("external_task_id") for node in found)
    return [said for value in (*given, *chosen) if (said := fields.text(value)) is not None]


def values(found: Sequence[Node], name: str) -> Iterator[object]:
    """What each layer that has this field says there."""
    return (value for node in found if (value := node.get(name)) is not None)


def innermost(files: Callable[[Node], Iterable[Output | None]], found: Sequence[Node]) -> tuple[Output, ...]:
    """The files of the first layer that has any."""
    return next((made for node in found if (made := fields.numbered(files(node)))), ())


def linked(found: Sequence[Node]) -> tuple[Output, ...]:
    """What a relay's own record links to: a video, unless its ending tells otherwise."""
    # Relays on new-api keep the link in `result_url`, and their older versions in `fail_reason`.
    told = (value for name in ("result_url", "fail_reason") for value in values(found, name))
    made = (fields.output(fields.kind_of(value) or "video", value) for value in told)
    return tuple(output for output in made if output is not None)[:1]


def _first(found: Sequence[Node], name: str) -> object:
    for node in found:
        value: object = node.get(name)
        if value is not None:
            return value
    return None


def _spoken(node: Node, name: str) -> object:
    # A `status` without an id is an envelope's ("error", "success"): about the request, not about the generation.
    return node.get(name) if name != "status" or not node.keys().isdisjoint(("id", "task_id")) else None


def _doubt(word: str) -> int:
    state = words.known_state(word)
    return 2 if state is None else int(state not in FINAL)


def _without_batch(problem: Problem, response: Response, asked: Iterable[str]) -> Mapping[str, Observation] | None:
    """What a failed batch request means: the same problem for all, "ask singly" (nothing), or a path that is not there (None)."""
    status, body = response.status, response.body
    if response.failure == "too_large":
        return {}
    if response.failure is not None or problem.code in _OF_THE_ACCOUNT or (status >= 500 and status != 501):  # noqa: PLR2004
        return dict.fromkeys(asked, problem)
    if 200 <= status < 300:  # noqa: PLR2004 - HTTP's own numbers
        return None if reading.is_html(body) else {}
    return {} if status in (400, 422) and body.lstrip()[:1] == b"{" else None
