"""`tracker listen`: the events as they happen, as receivers get them."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from threading import Event
from typing import Annotated, Any

import typer

from tracker.cli.options import AsJson, Project

LOOK_EVERY = 0.5
"""Seconds between two looks at the feed."""
PAGE = 200


def add_to(app: typer.Typer) -> None:
    app.command()(listen)


def listen(
    *,
    after: Annotated[
        str | None, typer.Option(help="From behind this event (evt_...) on; `start` for everything.")
    ] = None,
    event: Annotated[list[str] | None, typer.Option("--event", help="Only these types (repeat).")] = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Print events as they happen, until Ctrl-C; with --json a line each, as webhooks carry them."""
    from tracker.cli.render import print_json_line
    from tracker.cli.session import opened
    from tracker.core import ids

    pause = Event()
    with opened(project) as session, suppress(KeyboardInterrupt):
        feed = session.services.feed
        cursor = None if after == "start" else after or feed.newest(session.project_id)
        while True:
            entries = feed.page(session.project_id, cursor, PAGE)
            for entry in entries:
                cursor = entry.cursor
                if event and entry.type not in event:
                    continue
                fields = {"id": ids.public("evt", entry.id), **json.loads(entry.body)}
                if as_json:
                    print_json_line(fields)
                else:
                    _tell(fields)
            if len(entries) < PAGE:
                pause.wait(LOOK_EVERY)


def _tell(fields: dict[str, Any]) -> None:
    about = fields["data"]
    words = (about.get("id", ""), about.get("provider_status"), (about.get("error") or {}).get("message"))
    sys.stdout.write(
        f"{fields['timestamp'][11:19]}  {fields['type']:<22}  {'  '.join(str(word) for word in words if word)}\n"
    )
    sys.stdout.flush()
