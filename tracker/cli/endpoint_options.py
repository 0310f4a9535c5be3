"""The options that say how an endpoint is to be, and how they become the fields of the form."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from tracker.cli.options import chosen, seconds

Tags = Annotated[list[str] | None, typer.Option("--tag", help="Only generations with one of these tags (repeat).")]
Providers = Annotated[list[str] | None, typer.Option("--provider", help="Only generations of these (repeat).")]
Description = Annotated[str | None, typer.Option(help="What it is for.")]
RateLimit = Annotated[float | None, typer.Option(help="Deliveries per second at most.")]
Schedule = Annotated[
    str | None,
    typer.Option(metavar="WAITS", help="Waits before each attempt, such as 0,5s,5m,2h, instead of the usual ones."),
]
Authority = Annotated[
    Path | None, typer.Option("--ca", exists=True, dir_okay=False, help="PEM file of a private certificate authority.")
]
Header = Annotated[
    list[str] | None,
    typer.Option(help="'Name: value', sent along and stored encrypted (repeat). All users here can read it in `ps`."),
]
HeaderFile = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Headers from a file, one a line; for secret ones.")
]
HeaderStdin = Annotated[bool, typer.Option("--header-stdin", help="Headers from standard input, one a line.")]
HeaderEnv = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VARIABLE", help="A header whose value is in an environment variable (repeat)."),
]


class Clearable(StrEnum):
    """What an endpoint can be without."""

    EVENTS = "events"
    TAGS = "tags"
    PROVIDERS = "providers"
    HEADERS = "headers"
    DESCRIPTION = "description"
    RATE_LIMIT = "rate-limit"
    SCHEDULE = "schedule"
    CA = "ca"


Clear = Annotated[
    list[Clearable] | None, typer.Option(help="Take this away: a filter, all headers, a limit ... (repeat).")
]
_EMPTY: dict[Clearable, Any] = {
    Clearable.EVENTS: [], Clearable.TAGS: [], Clearable.PROVIDERS: [], Clearable.HEADERS: {}, Clearable.DESCRIPTION: "",
    Clearable.RATE_LIMIT: None, Clearable.SCHEDULE: None, Clearable.CA: None,
}  # fmt: skip


def fields_of(
    *, events: list[str] | None, schedule: str | None, ca: Path | None, headers: dict[str, str], clear: list[Clearable] | None = None,
    **plain: Any,
) -> dict[str, Any]:  # fmt: skip
    """The fields that the options speak of: what was left out stays as it is, what is cleared is named with its empty value."""
    given = {name: value for name, value in plain.items() if value is not None and value != []}
    given |= {"events": chosen(events)} if events else {}
    given |= {"headers": headers} if headers else {}
    if schedule is not None:
        given["schedule"] = [seconds(wait) for wait in chosen([schedule])]
    if ca is not None:
        given["ca"] = ca.read_text()
    for field in clear or ():
        name = field.replace("-", "_")
        if name in given:
            raise typer.BadParameter(f"{field} cannot be both given and cleared", param_hint="--clear")
        given[name] = _EMPTY[field]
    return given


def headers_of(
    plain: list[str] | None, file: Path | None, variables: list[str] | None, *, stdin: bool
) -> dict[str, str]:
    """The headers, from wherever they come; a later one of the same name wins."""
    found = dict(_header(line, "--header") for line in plain or ())
    if file is not None:
        found |= _lines(file.read_text(), "--header-file")
    if stdin:
        found |= _lines(sys.stdin.read(), "--header-stdin")
    for pair in variables or ():
        name, _, variable = pair.partition("=")
        if not os.environ.get(variable):
            raise typer.BadParameter(f"{variable or pair} is not set; write NAME=VARIABLE", param_hint="--header-env")
        found[name.strip()] = os.environ[variable].strip()
    return found


def _lines(text: str, option: str) -> dict[str, str]:
    return dict(_header(line, option) for line in text.splitlines() if line.strip())


def _header(text: str, option: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        # What stands there may be a secret, so it is not repeated unless it was on the command line.
        shown = repr(text) if option == "--header" else "a line"
        raise typer.BadParameter(f"{shown} is not of the form 'Name: value'", param_hint=option)
    return name.strip(), value.strip()
