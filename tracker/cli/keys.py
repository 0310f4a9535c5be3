"""`tracker keys ...`: API keys. A new key is printed once, and to standard output alone."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from tracker.cli.options import AsJson, Project, known_id, moment

group = typer.Typer(name="keys", help="API keys, each of one project.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    app.add_typer(group)


@group.command()
def create(
    *,
    name: Annotated[str, typer.Option(help="Who uses it.")] = "",
    scope: Annotated[
        list[str] | None, typer.Option(help="read, write or admin (repeat; default: read and write).")
    ] = None,
    expires: Annotated[str | None, typer.Option(help="After 30d, 12h, or at a time.")] = None,
    project: Annotated[str, typer.Option(help="Made where there is none yet.")] = "default",
    as_json: AsJson = False,
) -> None:
    """Make a key. It is shown this once."""
    from tracker.cli import fields
    from tracker.cli.render import print_json
    from tracker.cli.session import opened
    from tracker.services.forms import KeyForm, validated

    with opened(project, make=True) as session:
        given = {"name": name, "expires_at": expires and _until(expires, session.now()), "scopes": scope or None}
        form = validated(KeyForm, {field: value for field, value in given.items() if value})
        key, token = session.services.keys.create(session.project_id, form)
    if as_json:
        print_json(fields.key(key) | {"key": token})
    else:
        sys.stdout.write(f"{token}\n")
        sys.stderr.write(f"{fields.key(key)['id']} of project {key.project}; it is not shown again\n")


def _until(text: str, now: datetime) -> datetime:
    # `moment` reads spans as the past; an expiry lies as far ahead.
    at = moment(text, now)
    return now + (now - at) if at < now - timedelta(0) and not text[:4].isdigit() else at.astimezone(UTC)


@group.command("list")
def list_(
    *,
    project: Annotated[str | None, typer.Option(help="Of this project alone.")] = None,
    as_json: AsJson = False,
) -> None:
    """Keys of all projects, newest first."""
    from tracker.cli import fields
    from tracker.cli.render import ago, print_list
    from tracker.cli.session import opened

    with opened(project or "default") as session:
        found, _ = session.services.keys.page(session.project_id if project else None, None, 1000)
        now = session.now()
    rows = [fields.key(key) for key in found]
    if not as_json:
        for row, key in zip(rows, found, strict=True):
            over = key.expires_at is not None and key.expires_at <= now
            row["state"] = "revoked" if key.revoked_at else "expired" if over else "active"
            row["used"] = ago(key.last_used_at, now)
    columns = {"id": "id", "project": "project", "name": "name", "scopes": "scopes", "state": "state", "used": "used"}
    print_list(rows, as_json=as_json, columns=columns, empty="no keys")


@group.command()
def revoke(
    *, key_id: Annotated[str, typer.Argument(metavar="KEY_ID")], project: Project = "default", as_json: AsJson = False
) -> None:
    """End a key at once."""
    from tracker.cli import fields
    from tracker.cli.render import print_json
    from tracker.cli.session import opened

    with opened(project) as session:
        key = session.services.keys.revoke(session.project_id, known_id("key", "key", key_id))
    if as_json:
        print_json(fields.key(key))
    else:
        sys.stdout.write(f"{key_id} is revoked\n")
