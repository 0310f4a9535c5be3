"""When a webhook receiver is left in peace, and when it is given up. Pure: receives `now` and `roll`.

The circuit holds deliveries back without trying them, so that no attempt of their schedules is spent on a receiver that is down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from tracker.core.backoff import honoured, spread

OPENS = 5
"""Attempts in a row without an answer. One slow minute of a receiver with four requests in flight makes four."""
FIRST_QUIET, LONGEST_QUIET = 5.0, 300.0
"""Seconds between the probes of an open circuit: doubling, and short enough that a receiver which is back is noticed soon."""
WORN_OUT = timedelta(days=5)
"""An endpoint is disabled when every attempt failed for so long: longer than the schedule of one event (75 h 35 min)."""

_NOBODY = frozenset({"dns", "address", "connect", "tls", "timeout", "protocol", "too_large"})
_BUSY = frozenset({429, 502, 503, 504})
"""Standard Webhooks: answers that ask the sender to go slower."""
_OVERLOADED = frozenset({429, 503})
"""Whose Retry-After is about the receiver as a whole."""


@dataclass(frozen=True, slots=True)
class Health:
    """What a receiver's last attempts came to. `failing` counts those in a row that brought no answer."""

    failing: int = 0
    quiet_until: datetime | None = None
    failing_since: datetime | None = None
    """The first failure since the last success."""
    asked_until: datetime | None = None
    """Until when the receiver asked not to be called: what it answers to requests that were under way does not take that back."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One attempt, as far as the receiver's health is concerned."""

    error_class: str | None
    status_code: int | None
    retry_after: float | None


HEALTHY = Health()


def after(health: Health, outcome: Outcome, now: datetime, roll: float) -> Health:
    """The health after one more attempt. Any success closes the circuit at once."""
    if outcome.error_class is None:
        return replace(HEALTHY, asked_until=health.asked_until)
    since = health.failing_since or now
    if outcome.error_class not in _NOBODY and outcome.status_code not in _BUSY:
        # It answers, and quickly: it costs others nothing.
        return replace(HEALTHY, failing_since=since, asked_until=health.asked_until)
    failing, quiet_until, asked_until = health.failing + 1, health.quiet_until, health.asked_until
    if failing >= OPENS:
        quiet = spread(min(LONGEST_QUIET, FIRST_QUIET * 2.0 ** min(failing - OPENS, 20)), roll)
        quiet_until = _later(quiet_until, now + timedelta(seconds=quiet))
    if outcome.retry_after is not None and outcome.status_code in _OVERLOADED:
        asked_until = _later(asked_until, now + timedelta(seconds=honoured(outcome.retry_after)))
    return Health(failing, quiet_until, since, asked_until)


def _later(known: datetime | None, other: datetime) -> datetime:
    return other if known is None else max(known, other)


def patience(least: timedelta, schedule: Sequence[float] | None) -> timedelta:
    """How long every attempt may fail: `least`, or as long as a schedule of the endpoint's own may take with its jitter."""
    return max(least, timedelta(seconds=spread(sum(schedule or ()), 1.0)))


def worn_out(health: Health, now: datetime, period: timedelta) -> bool:
    """Whether every attempt has failed for so long that the receiver is given up."""
    return health.failing_since is not None and now - health.failing_since >= period
