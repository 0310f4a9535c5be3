"""Times at the borders: reading what providers and callers write, and writing RFC 3339."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

_DURATION = re.compile(
    r"P(?=.)(?:(?P<weeks>\d+(?:\.\d+)?)W)?(?:(?P<days>\d+(?:\.\d+)?)D)?"
    r"(?:T(?=.)(?:(?P<hours>\d+(?:\.\d+)?)H)?(?:(?P<minutes>\d+(?:\.\d+)?)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?"
)
_MILLISECONDS_FROM = 10**11
"""A number this large is milliseconds: as seconds it would lie in the year 5138."""
_EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
"""Anything before is a zero time (Go's 0001-01-01, Unix 0): no generation is that old."""


def rfc3339(at: datetime) -> str:
    """`at` in UTC with a Z, to the microsecond."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def provider_time(value: object) -> datetime | None:
    """A provider's time: ISO 8601, seconds or milliseconds since 1970. Zero times and nonsense are None, never an error."""
    try:
        if isinstance(value, str) and _is_whole(value):
            value = int(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            at = datetime.fromtimestamp(value / 1000 if value >= _MILLISECONDS_FROM else value, UTC)
        elif isinstance(value, str):
            at = datetime.fromisoformat(value)
            at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    return at if at > _EARLIEST else None


def duration(value: object) -> timedelta | None:
    """A span given as seconds or as an ISO 8601 duration without years and months (they have no fixed length); None when it is neither."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return timedelta(seconds=value) if abs(value) < 10**10 else None
    if not isinstance(value, str):
        return None
    if _is_whole(value):
        return timedelta(seconds=int(value)) if len(value.strip()) <= 10 else None  # noqa: PLR2004 - ten digits are 300 years
    found = _DURATION.fullmatch(value.strip().upper())
    if not found:
        return None
    try:
        return timedelta(**{unit: float(number) for unit, number in found.groupdict().items() if number})
    except OverflowError:
        return None


def retry_after(header: str | None, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110: seconds or a date); None when absent or unreadable."""
    if not header:
        return None
    text = header.strip()
    try:
        if _is_whole(text.replace(".", "", 1)):
            return float(text)
        at = parsedate_to_datetime(text)
        # RFC 5322 reads "-0000" as UTC of an unknown zone, and Python as no zone at all.
        return max(0.0, ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _is_whole(text: str) -> bool:
    # str.isdigit alone also says yes to "²", on which int() then fails.
    return text.isascii() and text.strip().isdigit()
