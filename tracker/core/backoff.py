"""The only retry policy of the product: how long to wait after something failed. All results are seconds."""

from __future__ import annotations

from collections.abc import Sequence

MINUTE, HOUR = 60.0, 3600.0

WEBHOOK_SCHEDULE: tuple[float, ...] = (
    0,
    5,
    5 * MINUTE,
    30 * MINUTE,
    2 * HOUR,
    5 * HOUR,
    10 * HOUR,
    14 * HOUR,
    20 * HOUR,
    24 * HOUR,
)
"""Standard Webhooks 1.0: ten attempts; entry n is the wait before attempt n + 1, 75 h 35 min 5 s in all."""

PAUSE_SCHEDULE: tuple[float, ...] = tuple(m * MINUTE for m in (1, 2, 4, 8, 16, 30))
"""Waits before each probe of a paused credential; the last one repeats."""

LONGEST_RETRY_AFTER = HOUR
"""A provider's wish is honoured up to here: beyond it a wrong header would make us deaf."""


def spread(seconds: float, roll: float, by: float = 0.2) -> float:
    """`seconds` +- `by`, where `roll` is uniform in [0, 1): keeps retries of many from meeting."""
    return seconds * (1 + by * (2 * roll - 1))


def after_failures(failures: int, longest: float, roll: float, *, first: float = 2.0) -> float:
    """The wait after the n-th failed observation in a row (n >= 1): `first`, doubling up to `longest`, +-20 %."""
    return spread(min(longest, first * 2.0 ** min(failures - 1, 40)), roll)


def honoured(retry_after: float, roll: float = 0.0) -> float:
    """A Retry-After as far as we follow it: never less, and with `roll` up to a tenth more, since many were told the same."""
    return min(max(retry_after, 0.0) * (1 + 0.1 * roll), LONGEST_RETRY_AFTER)


def late_check(age: float, roll: float) -> float:
    """The wait between checks of a generation past its timeout: a tenth of its age, between 10 minutes and 2 hours."""
    return min(max(spread(age / 10, roll, by=0.1), 10 * MINUTE), 2 * HOUR)


def probe(probes: int) -> float:
    """The wait before the next probe of a paused credential, `probes` of which were made already."""
    return PAUSE_SCHEDULE[min(probes, len(PAUSE_SCHEDULE) - 1)]


def next_webhook_attempt(
    attempts: int, roll: float, retry_after: float | None = None, schedule: Sequence[float] = WEBHOOK_SCHEDULE
) -> float | None:
    """The wait after `attempts` attempts that all failed, or None when the schedule is used up.

    A receiver's Retry-After lengthens the wait, to at most an hour (or the scheduled wait, when that is longer).
    """
    if attempts >= len(schedule):
        return None
    wait = spread(schedule[attempts], roll)
    return wait if retry_after is None else max(wait, honoured(retry_after))
