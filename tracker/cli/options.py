"""Options that many commands share, spelt once, and the reading of times and ids that people type."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated
from uuid import UUID

import typer

from tracker.core import ids, times
from tracker.errors import NotFoundError

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, as the API answers it.")]
Project = Annotated[str, typer.Option("--project", help="The project to act in.", show_default=True)]
GenerationId = Annotated[str, typer.Argument(metavar="ID", help="A generation, such as gen_01jd...")]

_AGO = re.compile(r"(?P<count>\d+(?:\.\d+)?)\s*(?P<unit>[smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def known_id(prefix: str, noun: str, text: str) -> UUID:
    """The id that was typed; NotFoundError when it is none of that kind."""
    found = ids.parse(prefix, text.strip())
    if found is None:
        raise NotFoundError(noun, text)
    return found


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
