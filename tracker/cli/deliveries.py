"""`tracker deliveries ...`: which event went where, with every attempt; and `tracker replay`: send webhooks again."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from tracker.cli.options import AsJson, Project, known_id, moment
from tracker.errors import TrackerError

STATES = ("pending", "delivered", "failed", "cancelled")
group = typer.Typer(name="deliveries", help="Webhooks that were sent or wait.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(metavar="DELIVERY_ID")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(group)
    app.command()(replay)


@group.command("list")
def list_(
    *,
    state: Annotated[str | None, typer.Option(help=f"{', '.join(STATES)}.")] = None,
    endpoint: Annotated[str | None, typer.Option(metavar="ENDPOINT_ID", help="To this endpoint.")] = None,
    generation: Annotated[str | None, typer.Option(metavar="ID", help="About this generation.")] = None,
    before: Annotated[str | None, typer.Option(metavar="DELIVERY_ID", help="Older than this one.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 20,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Deliveries, newest first."""
    from tracker.cli import fields
    from tracker.cli.render import ago, print_json, print_list
    from tracker.cli.session import opened
    from tracker.core import ids

    if state is not None and state not in STATES:
        raise typer.BadParameter(f"{state!r} is no state; states are {', '.join(STATES)}", param_hint="--state")
    with opened(project) as session:
        now = session.now()
        found, last = session.services.deliveries.page(
            session.project_id, known_id("dlv", "delivery", before) if before else None, limit, state=state,
            endpoint_id=known_id("ep", "endpoint", endpoint) if endpoint else None,
            generation_id=known_id("gen", "generation", generation) if generation else None,
        )  # fmt: skip
    if as_json:
        print_json({"data": [fields.delivery(row) for row in found], "next_cursor": last and ids.public("dlv", last)})
        return
    rows = [
        fields.delivery(r) | {"attempts": r.attempts, "age": ago(r.created_at, now), "next": ago(r.due_at, now)}
        for r in found
    ]
    columns = {
        "id": "id",
        "state": "state",
        "type": "type",
        "attempts": "tries",
        "age": "made",
        "next": "next",
        "url": "url",
    }
    print_list(rows, as_json=False, columns=columns, empty="no deliveries")
    if last:
        sys.stdout.write(f"there are more than these {limit} (--limit, --before {ids.public('dlv', last)})\n")


@group.command()
def show(*, id_: Id, project: Project = "default", as_json: AsJson = False) -> None:
    """One delivery with every attempt, oldest first."""
    from tracker.cli import fields
    from tracker.cli.render import print_facts, print_json
    from tracker.cli.session import opened

    with opened(project) as session:
        row, attempts = session.services.deliveries.get(session.project_id, known_id("dlv", "delivery", id_))
    tries = [fields.attempt(attempt) for attempt in attempts]
    if as_json:
        print_json(fields.delivery(row) | {"attempts": tries})
        return
    print_facts(fields.delivery(row))
    sys.stdout.write("".join(f"\n{_line(attempt)}" for attempt in tries) + "\n" if tries else "\nno attempt yet\n")


def _line(attempt: dict[str, Any]) -> str:
    """An attempt, and below it what the receiver said."""
    from tracker.cli.render import plain

    outcome = " ".join(str(part) for part in (attempt["status_code"], attempt["error_class"]) if part is not None)
    line = f"{attempt['number']:>3}  {attempt['at']}  {attempt['duration_ms']:>6} ms  {outcome}"
    return line + "".join(f"\n     {plain(said)}" for said in (attempt["response"] or "").splitlines() if said.strip())


@group.command()
def redeliver(
    *, ids: Annotated[list[str], typer.Argument(metavar="DELIVERY_ID...")], project: Project = "default", as_json: AsJson = False
) -> None:  # fmt: skip
    """Send deliveries again now, each with the same webhook-id; this takes the place of its next try."""
    from tracker.cli import fields
    from tracker.cli.render import print_json
    from tracker.cli.session import opened

    done, failed = [], False
    with opened(project) as session:
        for text in ids:
            try:
                row, _ = session.services.deliveries.redeliver(session.project_id, known_id("dlv", "delivery", text))
            except TrackerError as error:
                failed = True
                sys.stderr.write(f"tracker: {text}: {error}\n")
                continue
            done.append(fields.delivery(row))
            if not as_json:
                sys.stdout.write(f"{text} is sent again to {row.url}\n")
    if as_json:
        print_json({"data": done})
    if failed:
        raise typer.Exit(1)


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
