"""What one check of `tracker doctor` found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """`verdict` is ok, warning or wrong; `mend` says what to do."""

    subject: str
    verdict: str
    said: str
    mend: str = ""
