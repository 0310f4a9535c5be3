"""Request headers that only wish: If-None-Match and Prefer. What cannot be read is as if it were not there (RFC 9110, RFC 7240)."""

from __future__ import annotations

import re

LONGEST_WAIT = 60
"""Seconds; longer wishes are cut."""
_TAG = re.compile(r'(?:W/)?"([^"]*)"')
_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,9})\"?", re.IGNORECASE)


def names(header: str | None, tag: str) -> bool:
    """Whether If-None-Match names this tag; the comparison is the weak one."""
    return header is not None and (header.strip() == "*" or tag in _TAG.findall(header))


def wish_to_wait(header: str | None) -> int | None:
    """Seconds that Prefer asks to wait; None when it does not."""
    for preference in (header or "").split(","):
        found = _WAIT.fullmatch(preference.partition(";")[0].strip())
        if found:
            return min(int(found[1]), LONGEST_WAIT)
    return None
