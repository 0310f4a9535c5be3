"""`tracker pause` and `tracker resume`: the operator's switches for the whole installation."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer

from tracker.cli.options import AsJson


class Work(StrEnum):
    """What can be stopped."""

    POLLS = "polls"
    WEBHOOKS = "webhooks"
    DOWNLOADS = "downloads"


def add_to(app: typer.Typer) -> None:
    app.command()(pause)
    app.command()(resume)


def pause(
    *,
    work: Annotated[Work, typer.Argument()],
    reason: Annotated[str, typer.Option(help="Shown to whoever asks why nothing happens.")] = "paused by an operator",
    as_json: AsJson = False,
) -> None:
    """Stop polls, webhooks or downloads everywhere; nothing is lost, what is due waits."""
    from tracker.cli.session import opened

    with opened() as session:
        session.services.health.stop(work, reason)
        _tell(
            session.services.health.stopped(),
            f"{work} are paused; `tracker resume {work}` lets them go on",
            as_json=as_json,
        )


def resume(*, work: Annotated[Work, typer.Argument()], as_json: AsJson = False) -> None:
    """Let polls, webhooks or downloads go on."""
    from tracker.cli.session import opened

    with opened() as session:
        resumed = session.services.health.resume(work)
        _tell(
            session.services.health.stopped(),
            f"{work} go on" if resumed else f"{work} were not paused",
            as_json=as_json,
        )


def _tell(stopped: dict[str, str], sentence: str, *, as_json: bool) -> None:
    from tracker.cli.render import print_json

    if as_json:
        print_json({"stopped": stopped})
    else:
        sys.stdout.write(f"{sentence}\n")
