"""`tracker credentials ...`: provider accounts.

A key is read from standard input, a file or the environment, never from the command line, which everybody on the machine can read.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from tracker.cli.options import AsJson, Project, secret_from

group = typer.Typer(name="credentials", help="Provider accounts.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME")]
OneProvider = Annotated[
    str | None, typer.Option("--provider", help="Of several accounts of this name, the one of this provider.")
]
Force = Annotated[bool, typer.Option("--force", help="Although generations are pending.")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(group)


@group.command("list")
def list_(*, project: Project = "default", as_json: AsJson = False) -> None:
    """All credentials, by name."""
    from tracker.cli import fields
    from tracker.cli.render import print_list
    from tracker.cli.session import opened

    with opened(project) as session:
        found = [c for c in session.services.credentials.all(session.project_id) if c.providers]
    columns = {
        "name": "name",
        "providers": "providers",
        "state": "state",
        "has_api_key": "key",
        "base_url": "base url",
        "paused_reason": "why",
    }
    empty = "no credentials; add one with `tracker credentials set`, or set TRACKER_LUMA_API_KEY and the like"
    print_list([fields.credential(c) for c in found], as_json=as_json, columns=columns, empty=empty)


@group.command("set")
def set_(
    *,
    name: Name,
    provider: Annotated[list[str] | None, typer.Option(help="Providers that it serves (repeat).")] = None,
    base_url: Annotated[str | None, typer.Option(help="Where the provider or relay is.")] = None,
    api_key_stdin: Annotated[bool, typer.Option("--api-key-stdin", help="Read the key from standard input.")] = False,
    api_key_file: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Read the key from a file.")
    ] = None,
    api_key_env: Annotated[
        str | None, typer.Option(metavar="VARIABLE", help="Read the key from this variable.")
    ] = None,
    requests_per_second: Annotated[float | None, typer.Option(help="Its budget (default 20).")] = None,
    concurrency: Annotated[int | None, typer.Option(help="Requests at once (default 50).")] = None,
    poll_price: Annotated[
        float | None, typer.Option(help="Seconds of waiting that one request is worth, for all its generations.")
    ] = None,
    poll_longest: Annotated[
        float | None, typer.Option(help="Longest gap between two requests about one generation, in seconds.")
    ] = None,
    force: Force = False,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Add an account, or change what is given of one. Without a new key the old one stays."""
    from tracker.cli.session import opened
    from tracker.services.forms import CredentialForm, validated

    options: dict[str, Any] = {
        "providers": provider or None, "base_url": base_url, "requests_per_second": requests_per_second, "concurrency": concurrency,
        "poll_price": poll_price, "poll_longest": poll_longest,
        "api_key": secret_from("--api-key", stdin=api_key_stdin, file=api_key_file, variable=api_key_env),
    }  # fmt: skip
    form = validated(CredentialForm, {field: value for field, value in options.items() if value is not None})
    with opened(project) as session:
        stored = session.services.credentials.put(session.project_id, name, form, force=force)
    _tell(stored, as_json=as_json)


@group.command()
def show(*, name: Name, provider: OneProvider = None, project: Project = "default", as_json: AsJson = False) -> None:
    """One credential, without its key."""
    from tracker.cli.session import opened

    with opened(project) as session:
        found = session.services.credentials.get(session.project_id, name, provider)
    _tell(found, as_json=as_json)


@group.command()
def delete(*, name: Name, force: Force = False, project: Project = "default", as_json: AsJson = False) -> None:
    """Remove an account; with --force its pending generations end as failed (credential_deleted)."""
    from tracker.cli.session import opened

    with opened(project) as session:
        session.services.credentials.delete(session.project_id, name, force=force)
    _say({"deleted": name}, f"{name} is gone", as_json=as_json)


@group.command()
def resume(*, name: Name, provider: OneProvider = None, project: Project = "default", as_json: AsJson = False) -> None:
    """Let every paused account of this name go on at once. As JSON: the first that was paused, as the API shows it."""
    from tracker.cli.session import opened

    with opened(project) as session:
        resumed = session.services.credentials.resume(session.project_id, name, provider)
    for credential in resumed[:1] if as_json else resumed:
        _tell(credential, as_json=as_json)


@group.command("test")
def try_out(*, name: Name, provider: OneProvider = None, project: Project = "default", as_json: AsJson = False) -> None:
    """Ask the provider one harmless question with this key; exit 1 when it is refused."""
    from tracker.cli.session import opened

    with opened(project) as session:
        found = session.services.credentials.test(session.project_id, name, provider)
    _say(found, found["message"], as_json=as_json)
    if not found["ok"]:
        raise typer.Exit(1)


def _tell(found: Any, *, as_json: bool) -> None:
    from tracker.cli import fields
    from tracker.cli.render import print_facts, print_json

    (print_json if as_json else print_facts)(fields.credential(found))


def _say(value: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    from tracker.cli.render import print_json

    if as_json:
        print_json(value)
    else:
        sys.stdout.write(f"{sentence}\n")
