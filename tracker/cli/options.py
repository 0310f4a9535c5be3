"""Options that many commands share, spelt once, and the reading of times and ids that people type."""

from __future__ import annotations

import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from tracker.core import ids, times
from tracker.errors import NotFoundError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API answers it.")]
Project = Annotated[str, typer.Option("--project", help="The project to act in.", show_default=True)]
Events = Annotated[
    list[str] | None, typer.Option("--event", "--events", help="Only these types (repeat, or a,b).", metavar="TYPE")
]
GenerationId = Annotated[str, typer.Argument(metavar="ID", help="A generation, such as gen_01jd...")]

_AGO = re.compile(r"(?P<count>\d+(?:\.\d+)?)\s*(?P<unit>[smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def known_id(prefix: str, noun: str, text: str) -> UUID:
    """The id that was typed; NotFoundError when it is none of that kind."""
    found = ids.parse(prefix, text.strip())
    if found is None:
        raise NotFoundError(noun, text)
    return found


def chosen(words: list[str] | None) -> list[str]:
    """What was repeated or written with commas, as one list."""
    return [part.strip() for word in words or () for part in word.split(",") if part.strip()]


def secret_from(option: str, *, stdin: bool, file: Path | None, variable: str | None) -> str | None:
    """What must not stand on the command line, which everybody on the machine can read; None when it was given in no way.

    The options are `option` with -stdin, -file and -env behind it.
    """
    if sum((stdin, file is not None, variable is not None)) > 1:
        raise typer.BadParameter("give it in one way only", param_hint=option)
    if variable is not None:
        if not os.environ.get(variable):
            raise typer.BadParameter(f"{variable} is not set", param_hint=f"{option}-env")
        return os.environ[variable].strip()
    if file is not None:
        return file.read_text().strip()
    if stdin:
        import getpass

        return (getpass.getpass(f"{option[2:]}: ") if sys.stdin.isatty() else sys.stdin.readline()).strip()
    return None


def seconds(text: str) -> float:
    """A span as people type it: `90`, `5s`, `5m`, `2h`."""
    span = _AGO.fullmatch(text.strip().lower())
    if span:
        return timedelta(**{_UNITS[span["unit"]]: float(span["count"])}).total_seconds()
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no span of time: write seconds, or 5s, 5m, 2h") from None


def moment(text: str, now: datetime) -> datetime:
    """A time in the past as people type it: `2h`, `30m`, `PT2H`, or RFC 3339."""
    ago = _AGO.fullmatch(text.strip().lower())
    if ago:
        return now - timedelta(**{_UNITS[ago["unit"]]: float(ago["count"])})
    span = times.duration(text) if text.strip().upper().startswith("P") else None
    if span is not None:
        return now - span
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no time: write 2h, 30m, 1d, or 2026-11-23T08:00:00Z") from None
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at
