"""When a credential is paused and when it comes back: pure judgement over the answers of one credential."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

from tracker.core import backoff
from tracker.core.observation import Observation, Problem, ProblemCode, Seen

REFUSALS = 3
"""401 or 403 answers in a row that pause: from different generations where there are so many, since one may be another account's."""


FAILING = 20
"""So many answers in a row without a word from the provider (5xx, time-outs, broken connections) open the circuit: it is an outage."""
CIRCUIT_LONGEST = 30.0
"""Seconds between two half-open probes at most: a recovery is noticed within this."""
LIMITED_FIRST, LIMITED_LONGEST = 1.0, 30.0
"""Seconds for which a 429 without Retry-After blocks: the first, doubling with each that follows at once, and the longest."""
_SILENT = frozenset({ProblemCode.HTTP_ERROR, ProblemCode.TIMEOUT, ProblemCode.CONNECTION, ProblemCode.UNREADABLE})


@dataclass(frozen=True, slots=True)
class Health:
    """How a credential fares. `pending` counts its generations on the schedule."""

    paused: bool = False
    reason: str | None = None
    refused: tuple[UUID, ...] = ()
    """The generations refused in a row, newest last; at most REFUSALS are kept."""
    probes: int = 0
    probe_at: datetime | None = None
    blocked_until: datetime | None = None
    failing: int = 0
    """Answers in a row that showed an outage; from FAILING on the circuit is open, and one poll at a time is let through."""
    limited: int = 0
    """Blocks in a row for a 429 without Retry-After."""


def judge(health: Health, answers: Iterable[tuple[UUID, Observation]], *, pending: int, now: datetime) -> Health:
    """The health after these answers, in the order in which they came."""
    for generation_id, answer in answers:
        health = _after(health, generation_id, answer, pending, now)
    return health


def _after(health: Health, generation_id: UUID, answer: Observation, pending: int, now: datetime) -> Health:
    match answer:
        case Problem(code=ProblemCode.OUT_OF_QUOTA):
            return pause(health, f"out of quota: {answer.message}", now)
        case Problem(code=ProblemCode.UNAUTHORIZED):
            return _refused(health, generation_id, answer, pending, now)
        case Problem(code=ProblemCode.RATE_LIMITED, retry_after=float() as wait) if wait > 0:
            return _blocked(health, backoff.honoured(wait), now)
        case Problem(code=ProblemCode.RATE_LIMITED):
            return _limited(health, now)
        case Seen() | Problem(code=ProblemCode.NOT_FOUND | ProblemCode.UNKNOWN_STATUS | ProblemCode.NO_OUTPUT):
            # The provider knew us: whatever it said of the task, the key is good.
            return _well(health, now)
        case Problem(code=code) if code in _SILENT:
            return _silent(health, now)
        case _:
            return health


def _well(health: Health, now: datetime) -> Health:
    if health.failing < FAILING and health.blocked_until and health.blocked_until > now:
        # A block for too many requests still runs: this was asked before it.
        return Health(blocked_until=health.blocked_until, limited=health.limited)
    return Health()


def _blocked(health: Health, seconds: float, now: datetime) -> Health:
    until = now + timedelta(seconds=seconds)
    return replace(health, blocked_until=max(until, health.blocked_until or until))


def _limited(health: Health, now: datetime) -> Health:
    if health.blocked_until and health.blocked_until > now:
        return health  # this was asked before the block
    wait = min(LIMITED_LONGEST, LIMITED_FIRST * 2.0 ** min(health.limited, 10))
    return _blocked(replace(health, limited=min(health.limited + 1, 1000)), wait, now)


def _silent(health: Health, now: datetime) -> Health:
    if health.failing >= FAILING and health.blocked_until and health.blocked_until > now:
        return health  # the circuit is open: this was asked before it opened
    failing = min(health.failing + 1, 1000)
    if failing < FAILING:
        return replace(health, failing=failing)
    return _blocked(replace(health, failing=failing), min(CIRCUIT_LONGEST, 2.0 ** min(failing - FAILING, 10)), now)


def _refused(health: Health, generation_id: UUID, answer: Problem, pending: int, now: datetime) -> Health:
    others = (
        tuple(known for known in health.refused if known != generation_id) if pending >= REFUSALS else health.refused
    )
    refused = (*others, generation_id)[-REFUSALS:]
    if len(refused) < REFUSALS:
        return replace(health, refused=refused)
    return replace(pause(health, f"the provider refuses the key: {answer.message}", now), refused=refused)


def pause(health: Health, reason: str, now: datetime) -> Health:
    """Paused for this reason, with the first probe in a minute; a paused one stays as it is."""
    if health.paused:
        return health
    return replace(
        health, paused=True, reason=reason[:500], probes=0, probe_at=now + timedelta(seconds=backoff.probe(0))
    )
