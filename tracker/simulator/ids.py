"""Task ids that carry their own story, so that a restarted simulator answers the same about ids submitted before.

The bits hold what the provider would keep in its database; nothing here keeps state.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass

# Fields from the highest bits down. A UUID leaves 122 bits beside its version and variant.
_FIELDS = (("start", 38), ("queue", 20), ("duration", 24), ("aspect", 3), ("reason", 3), ("sequence", 20), ("mark", 14))
_WIDTH = sum(bits for _, bits in _FIELDS)
_ALL = (1 << _WIDTH) - 1

# Times are kept in hundredths of a second: 38 bits of them reach 87 years past the epoch below, 24 bits hold 46 hours.
_TICK = 0.01
_EPOCH = 1_577_836_800.0  # 2020-01-01: the clock of any machine that runs this is past it

# Tells our ids from other people's UUIDs: one in 16,384 strangers passes.
_MARK = 0b10_1101_0011_0101
_VERSION = 4  # random UUIDs, as the provider's ids are

# Odd, hence invertible modulo a power of two. It spreads the fields over all digits, so that ids look random, as the provider's do.
_MIX = 0x2545F4914F6CDD1D9E3779B97F4A7C15 & _ALL | 1
_UNMIX = pow(_MIX, -1, _ALL + 1)

ASPECT_RATIOS = ("16:9", "9:16", "1:1", "4:3", "3:4", "21:9", "9:21")
LONGEST_QUEUE = ((1 << 20) - 1) * _TICK
LONGEST_DURATION = ((1 << 24) - 1) * _TICK


@dataclass(frozen=True, slots=True)
class Birth:
    """What a task id says of its generation: times in seconds, `reason` 0 for success or the number of a failure's reason."""

    start: float
    queue: float
    duration: float
    aspect_ratio: str = ASPECT_RATIOS[0]
    reason: int = 0
    sequence: int = 0


def encode(birth: Birth) -> str:
    """A UUID (version 4 in looks) that holds `birth`, its times rounded to hundredths of a second."""
    numbers = {
        "start": int((birth.start - _EPOCH) / _TICK),  # rounded down: nothing begins in the future
        "queue": round(min(birth.queue, LONGEST_QUEUE) / _TICK),
        "duration": round(min(birth.duration, LONGEST_DURATION) / _TICK),
        "aspect": ASPECT_RATIOS.index(birth.aspect_ratio),
        "reason": birth.reason,
        "sequence": birth.sequence,
        "mark": _MARK,
    }
    packed = 0
    for name, bits in _FIELDS:
        packed = packed << bits | numbers[name] & ((1 << bits) - 1)
    mixed = _mix(packed)
    return str(uuid.UUID(int=_widen(mixed)))


def decode(task_id: str) -> Birth | None:
    """The birth that `encode` put into this id, or None for an id that is not ours."""
    try:
        number = uuid.UUID(task_id)
    except ValueError:
        return None
    if number.version != _VERSION or str(number) != task_id:
        return None
    packed = _unmix(_narrow(number.int))
    numbers = {}
    for name, bits in reversed(_FIELDS):
        numbers[name] = packed & ((1 << bits) - 1)
        packed >>= bits
    if numbers["mark"] != _MARK or numbers["aspect"] >= len(ASPECT_RATIOS):
        return None
    return Birth(
        start=_EPOCH + numbers["start"] * _TICK,
        queue=numbers["queue"] * _TICK,
        duration=numbers["duration"] * _TICK,
        aspect_ratio=ASPECT_RATIOS[numbers["aspect"]],
        reason=numbers["reason"],
        sequence=numbers["sequence"],
    )


def _mix(value: int) -> int:
    value = value * _MIX & _ALL
    value ^= value >> _WIDTH // 2
    return value * _MIX & _ALL


def _unmix(value: int) -> int:
    value = value * _UNMIX & _ALL
    value ^= value >> _WIDTH // 2  # its own inverse, because the shift is half of the width
    return value * _UNMIX & _ALL


def _widen(value: int) -> int:
    """Put version 4 and the RFC 9562 variant between our 48 + 12 + 62 bits."""
    return (value >> 74) << 80 | _VERSION << 76 | (value >> 62 & 0xFFF) << 64 | 0b10 << 62 | value & ((1 << 62) - 1)


def _narrow(number: int) -> int:
    return (number >> 80) << 74 | (number >> 64 & 0xFFF) << 62 | number & ((1 << 62) - 1)
