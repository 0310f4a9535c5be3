"""Byte ranges (RFC 9110, section 14). Several ranges in one request are answered with the whole, which the RFC allows."""

from __future__ import annotations

import re

from tracker.api.problems import UnsatisfiableError

_RANGE = re.compile(r"bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})", re.IGNORECASE)


def asked(header: str | None, size: int) -> tuple[int, int] | None:
    """The first byte and the one after the last; None for the whole. UnsatisfiableError when there are no such bytes."""
    found = _RANGE.fullmatch(header.strip()) if header else None
    if not found or not (found[1] or found[2]):
        return None
    if not found[1]:
        return _last(int(found[2]), size)
    first, last = int(found[1]), int(found[2]) if found[2] else size - 1
    if found[2] and last < first:
        return None  # not a range at all, so it is ignored
    if first >= size:
        raise UnsatisfiableError(size)
    return first, min(last + 1, size)


def _last(count: int, size: int) -> tuple[int, int]:
    if not count or not size:
        raise UnsatisfiableError(size)
    return max(0, size - count), size
