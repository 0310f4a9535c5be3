"""Named steps of a generation: each gives the generation as it will be, with the event that says so.

Nobody fills a half-consistent row by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tracker.core import ids
from tracker.core.events import EventType, envelope, generation_body, of_state
from tracker.core.generation import Artifact, Generation, State
from tracker.core.lifecycle import FINAL, Decision
from tracker.store.events import Event


@dataclass(frozen=True, slots=True)
class Step:
    """A generation after a change, and the event of that change (None where only its outputs changed)."""

    generation: Generation
    event: Event | None


def registered(g: Generation, now: datetime, base_url: str) -> Event:
    """The first event of a generation: sequence 1. It is sent to nobody."""
    return _event(EventType.REGISTERED, g, now, base_url, None, {})


def observed(g: Generation, decision: Decision, now: datetime, base_url: str) -> Step:
    """What an observation made of a generation."""
    status = decision.provider_status if decision.provider_status is not None else g.provider_status
    outputs = g.outputs if decision.outputs is None else decision.outputs
    changed = replace(
        g,
        provider_status=status,
        outputs=outputs,
        progress=g.progress if decision.progress is None else decision.progress,
    )
    if decision.to is None:
        return Step(changed if outputs == g.outputs else replace(changed, version=g.version + 1), None)
    return moved(changed, decision.to, now, base_url, error=decision.error)


def moved(
    g: Generation, to: State, now: datetime, base_url: str, *, detail: dict[str, Any] | None = None, **fields: Any
) -> Step:
    """A transition. Legality was decided by `lifecycle`; event times never go backwards because rows are locked in turn."""
    ended: dict[str, Any] = {"finished_at": now, "next_poll_at": None} if to in FINAL else {}
    after = replace(g, state=to, version=g.version + 1, sequence=g.sequence + 1, **ended, **fields)
    return Step(after, _event(of_state(to), after, now, base_url, g.state, detail or {}))


def retracked(g: Generation, now: datetime, base_url: str) -> Step:
    """Tracked again, as if registered now: deadlines run anew."""
    after = replace(
        g, state=State.REGISTERED, error=None, finished_at=None, provider_status=None, timeout_at=now + g.timeout,
        give_up_at=now + max(g.give_up_at - g.registered_at, g.timeout), version=g.version + 1, sequence=g.sequence + 1,
    )  # fmt: skip
    return Step(after, _event(EventType.REGISTERED, after, now, base_url, g.state, {"retracked": True}))


def of_artifact(type_: EventType, g: Generation, artifact: Artifact | None, now: datetime, base_url: str) -> Step:
    """Something happened to a stored copy."""
    after = replace(g, version=g.version + 1, sequence=g.sequence + 1)
    body = generation_body(type_, after, at=now, base_url=base_url, artifact=artifact)
    event = Event(ids.uuid7(now), g.project_id, type_, now, body, generation_id=g.id, sequence=after.sequence)
    return Step(after, event)


def of_project(type_: EventType, project_id: Any, fields: dict[str, Any], now: datetime) -> Event:
    """An event that is about no generation."""
    return Event(ids.uuid7(now), project_id, type_, now, envelope(type_, now, fields))


def _event(  # noqa: PLR0917 - one private maker for every event
    type_: EventType, g: Generation, now: datetime, base_url: str, previous: State | None, detail: dict[str, Any]
) -> Event:
    return Event(
        id=ids.uuid7(now),
        project_id=g.project_id,
        type=type_,
        at=now,
        body=generation_body(type_, g, at=now, base_url=base_url, previous=previous),
        generation_id=g.id,
        sequence=g.sequence,
        from_state=previous and previous.value,
        to_state=g.state.value,
        provider_status=g.provider_status,
        detail=detail or None,
    )
