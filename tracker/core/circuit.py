"""When a webhook receiver is left in peace, and when it is given up. Pure: receives `now` and `roll`.

The circuit holds deliveries back without trying them, so that no attempt of their schedules is spent on a receiver that is down.
"""

from __future__ import annotations

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
        return HEALTHY
    since = health.failing_since or now
    if outcome.error_class not in _NOBODY and outcome.status_code not in _BUSY:
        return replace(HEALTHY, failing_since=since)  # it answers, and quickly: it costs others nothing
    failing = health.failing + 1
    quiet = 0.0
    if failing >= OPENS:
        quiet = spread(min(LONGEST_QUIET, FIRST_QUIET * 2.0 ** min(failing - OPENS, 20)), roll)
    if outcome.retry_after is not None and outcome.status_code in _OVERLOADED:
        quiet = max(quiet, honoured(outcome.retry_after))
    until = now + timedelta(seconds=quiet) if quiet else health.quiet_until
    return Health(failing, max(until, health.quiet_until) if until and health.quiet_until else until, since)


def worn_out(health: Health, now: datetime) -> bool:
    """Whether every attempt has failed for so long that the receiver is given up."""
    return health.failing_since is not None and now - health.failing_since >= WORN_OUT
