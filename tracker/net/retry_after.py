"""What a Retry-After header asks for. Reads the header only; how much of it is honoured is decided in `core/backoff`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime


def seconds(headers: Mapping[str, str]) -> float | None:
    """The wait in seconds, never negative; None without a readable header.

    A date is measured against the sender's own Date header where there is one, so that its clock does not matter.
    """
    wish = headers.get("retry-after", "").strip()
    if wish.isascii() and wish.isdecimal():
        return float(wish[:9])
    until = _moment(wish)
    if until is None:
        return None
    now = _moment(headers.get("date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def _moment(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, IndexError, OverflowError, OSError):
        return None
