"""`tracker events`: the stream of everything that happens, as `GET /v1/events` gives it."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from threading import Event
from typing import Annotated

import typer

from tracker.cli.options import AsJson, Events, Project, chosen

LOOK_EVERY = 0.5
"""Seconds between two looks at the feed."""
PAGE = 200


def add_to(app: typer.Typer) -> None:
    app.command()(events)


def events(
    *,
    after: Annotated[
        str | None, typer.Option(help="From behind this event (evt_...) on; `start` for everything.")
    ] = None,
    event: Events = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Print events as they happen, read from the database, until Ctrl-C; with --json a line each. Webhooks: tracker listen."""
    from tracker.cli.render import event_line, print_json_line
    from tracker.cli.session import opened
    from tracker.core import ids
    from tracker.core.events import EventType

    wanted, pause = chosen(event), Event()
    for type_ in wanted:
        if type_ not in set(EventType):
            raise typer.BadParameter(f"{type_!r} is no event; events are {', '.join(EventType)}", param_hint="--event")
    with opened(project) as session, suppress(KeyboardInterrupt):
        feed = session.services.feed
        cursor = None if after == "start" else after or feed.newest(session.project_id)
        while True:
            entries = feed.page(session.project_id, cursor, PAGE)
            for entry in entries:
                cursor = entry.cursor
                if wanted and entry.type not in wanted:
                    continue
                fields = {"id": ids.public("evt", entry.id), **json.loads(entry.body)}
                if as_json:
                    print_json_line(fields)
                else:
                    sys.stdout.write(event_line(fields["timestamp"], fields) + "\n")
                    sys.stdout.flush()
            if len(entries) < PAGE:
                pause.wait(LOOK_EVERY)
