"""`tracker replay`: send webhooks again."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from tracker.cli.options import AsJson, Project, known_id, moment


def add_to(app: typer.Typer) -> None:
    app.command()(replay)


def replay(
    *,
    delivery: Annotated[
        str | None, typer.Argument(metavar="DELIVERY_ID", help="One delivery, such as dlv_01jd...")
    ] = None,
    endpoint: Annotated[str | None, typer.Option(help="All that failed or was missed at this endpoint ...")] = None,
    since: Annotated[str | None, typer.Option(help="... since then: 2h, 1d, or a time.")] = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Send one delivery again now, or all that an endpoint failed or missed since a time. Receivers see the same webhook-id."""
    from tracker.cli.session import opened

    if (delivery is None) == (endpoint is None) or (endpoint is None) != (since is None):
        raise typer.BadParameter("give either a DELIVERY_ID, or --endpoint with --since")
    with opened(project) as session:
        if delivery is not None:
            row, _ = session.services.deliveries.redeliver(session.project_id, known_id("dlv", "delivery", delivery))
            _tell(1, f"{delivery} is sent again to {row.url}", as_json=as_json)
        elif endpoint is not None and since is not None:
            at = moment(since, session.now())
            done = session.services.endpoints.recover(session.project_id, known_id("ep", "endpoint", endpoint), at)
            more = "" if done.complete else "; the rest follows in the background"
            _tell(done.count, f"{done.count:,} deliveries are sent again to {endpoint}{more}", as_json=as_json)


def _tell(count: int, sentence: str, *, as_json: bool) -> None:
    from tracker.cli.render import print_json

    if as_json:
        print_json({"replayed": count})
    else:
        sys.stdout.write(f"{sentence}\n")
