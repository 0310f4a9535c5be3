"""Ids: UUIDv7 (RFC 9562) inside, made here because PostgreSQL 15 has no uuidv7(); outside a prefix and 26 Crockford base32 digits."""

from __future__ import annotations

import secrets
from datetime import datetime
from uuid import UUID

DIGITS = "0123456789abcdefghjkmnpqrstvwxyz"
_VALUES = {digit: value for value, digit in enumerate(DIGITS)}
_LENGTH = 26


def uuid7(now: datetime, noise: int | None = None) -> UUID:
    """A UUID whose first 48 bits are `now` in milliseconds, so that ids sort by time; `noise` gives the other 74 bits."""
    noise = secrets.randbits(74) if noise is None else noise
    milliseconds = int(now.timestamp() * 1000) & (2**48 - 1)
    return UUID(int=milliseconds << 80 | 7 << 76 | (noise >> 62 & 0xFFF) << 64 | 2 << 62 | noise & (2**62 - 1))


def public(prefix: str, key: UUID) -> str:
    """The id as a caller sees it, such as `gen_01jdb8...`."""
    number, digits = key.int, []
    for _ in range(_LENGTH):
        number, digit = divmod(number, 32)
        digits.append(DIGITS[digit])
    return f"{prefix}_{''.join(reversed(digits))}"


def parse(prefix: str, text: str) -> UUID | None:
    """The UUID of a public id, or None when it is not one of that kind (which callers treat as unknown)."""
    head, _, tail = text.partition("_")
    if head != prefix or len(tail) != _LENGTH or not set(tail) <= _VALUES.keys():
        return None
    number = 0
    for digit in tail:
        number = number * 32 + _VALUES[digit]
    return UUID(int=number) if number < 2**128 else None
