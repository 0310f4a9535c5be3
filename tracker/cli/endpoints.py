"""`tracker endpoints ...`: where a project wants its events."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from tracker.cli.endpoint_options import (
    Authority,
    Clear,
    Description,
    Header,
    HeaderEnv,
    HeaderFile,
    HeaderStdin,
    Providers,
    RateLimit,
    Schedule,
    Tags,
    fields_of,
    headers_of,
)
from tracker.cli.options import AsJson, Events, Project, known_id, moment

if TYPE_CHECKING:
    from tracker.cli.session import Session
    from tracker.store.endpoints import Endpoint

PAGE = 200
group = typer.Typer(name="endpoints", help="Webhook endpoints.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(metavar="ENDPOINT_ID")]


def add_to(app: typer.Typer) -> None:
    app.add_typer(group)


@group.command("list")
def list_(*, project: Project = "default", as_json: AsJson = False) -> None:
    """All endpoints, newest first."""
    from tracker.cli import fields
    from tracker.cli.render import print_list
    from tracker.cli.session import opened

    with opened(project) as session:
        found = [fields.endpoint(e) for e in _all(session)]
    columns = {"id": "id", "enabled": "on", "url": "url", "events": "events"}
    print_list(found, as_json=as_json, columns=columns, empty="no endpoints")


def _all(session: Session) -> Iterator[Endpoint]:
    before: UUID | None = None
    while True:
        found, before = session.services.endpoints.page(session.project_id, before, PAGE)
        yield from found
        if before is None:
            return


@group.command()
def create(
    *,
    url: Annotated[str, typer.Argument(metavar="URL")],
    event: Events = None,
    tag: Tags = None,
    provider: Providers = None,
    header: Header = None,
    header_file: HeaderFile = None,
    header_stdin: HeaderStdin = False,
    header_env: HeaderEnv = None,
    description: Description = None,
    rate_limit: RateLimit = None,
    schedule: Schedule = None,
    ca: Authority = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Add an endpoint. Its signing secret: tracker endpoints secret ID."""
    from tracker.cli.session import opened
    from tracker.services.forms import EndpointForm, validated

    given = fields_of(
        url=url, events=event, tags=tag, providers=provider, description=description, rate_limit=rate_limit, schedule=schedule, ca=ca,
        headers=headers_of(header, header_file, header_env, stdin=header_stdin),
    )  # fmt: skip
    with opened(project) as session:
        made = session.services.endpoints.create(session.project_id, validated(EndpointForm, given))
    _tell(made, as_json=as_json)


@group.command()
def edit(
    *,
    id_: Id,
    url: Annotated[str | None, typer.Option(help="The new address; what still waits goes there.")] = None,
    event: Events = None,
    tag: Tags = None,
    provider: Providers = None,
    header: Header = None,
    header_file: HeaderFile = None,
    header_stdin: HeaderStdin = False,
    header_env: HeaderEnv = None,
    description: Description = None,
    rate_limit: RateLimit = None,
    schedule: Schedule = None,
    ca: Authority = None,
    clear: Clear = None,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Turn it on or off.")] = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Change what is given; the rest stays. Headers are replaced all together, since their values are never shown."""
    from tracker.cli.session import opened
    from tracker.services.forms import EndpointChange, validated

    given = fields_of(
        url=url, events=event, tags=tag, providers=provider, description=description, rate_limit=rate_limit, schedule=schedule, ca=ca,
        headers=headers_of(header, header_file, header_env, stdin=header_stdin), clear=clear, enabled=enabled,
    )  # fmt: skip
    with opened(project) as session:
        change = validated(EndpointChange, given)
        changed = session.services.endpoints.edit(session.project_id, known_id("ep", "endpoint", id_), change)
    _tell(changed, as_json=as_json)


@group.command()
def show(*, id_: Id, project: Project = "default", as_json: AsJson = False) -> None:
    """One endpoint."""
    from tracker.cli.session import opened

    with opened(project) as session:
        found = session.services.endpoints.get(session.project_id, known_id("ep", "endpoint", id_))
    _tell(found, as_json=as_json)


@group.command()
def delete(*, id_: Id, project: Project = "default", as_json: AsJson = False) -> None:
    """Remove an endpoint with its deliveries."""
    from tracker.cli.session import opened

    with opened(project) as session:
        session.services.endpoints.delete(session.project_id, known_id("ep", "endpoint", id_))
    _say({"deleted": id_}, f"{id_} is gone", as_json=as_json)


@group.command()
def secret(
    *,
    id_: Annotated[str | None, typer.Argument(metavar="ENDPOINT_ID")] = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """The secret that signs for an endpoint; without one, the project's, which signs for every webhook_url."""
    from tracker.cli.session import opened

    with opened(project) as session:
        service = session.services.endpoints
        found = (
            service.secret(session.project_id, known_id("ep", "endpoint", id_))
            if id_
            else service.project_secret(session.project_id)
        )
    _say({"secret": found}, found, as_json=as_json)


@group.command("rotate-secret")
def rotate_secret(
    *,
    id_: Annotated[str | None, typer.Argument(metavar="ENDPOINT_ID")] = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """A new secret; the old one signs beside it for 24 h."""
    from tracker.cli.session import opened

    with opened(project) as session:
        service = session.services.endpoints
        key = known_id("ep", "endpoint", id_) if id_ else None
        made = (
            service.rotate_secret(session.project_id, key) if key else service.rotate_project_secret(session.project_id)
        )
    _say({"secret": made}, made, as_json=as_json)


@group.command("test")
def ping(*, id_: Id, project: Project = "default", as_json: AsJson = False) -> None:
    """Send a ping."""
    from tracker.cli.session import opened
    from tracker.core import ids

    with opened(project) as session:
        delivery = ids.public(
            "dlv", session.services.endpoints.test(session.project_id, known_id("ep", "endpoint", id_))
        )
    _say({"delivery_id": delivery}, f"a ping is on its way as {delivery}", as_json=as_json)


@group.command()
def recover(
    *,
    id_: Id,
    since: Annotated[str, typer.Option(help="2h, 1d, or a time.")],
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Send again all that failed or was missed since a time."""
    from tracker.cli.session import opened

    with opened(project) as session:
        at = moment(since, session.now())
        done = session.services.endpoints.recover(session.project_id, known_id("ep", "endpoint", id_), at)
    more = "" if done.complete else "; the rest follows in the background"
    _say({"recovered": done.count}, f"{done.count:,} deliveries are sent again{more}", as_json=as_json)


def _tell(found: Any, *, as_json: bool) -> None:
    from tracker.cli import fields
    from tracker.cli.render import print_facts, print_json

    (print_json if as_json else print_facts)(fields.endpoint(found))


def _say(value: dict[str, Any], sentence: str, *, as_json: bool) -> None:
    from tracker.cli.render import print_json

    if as_json:
        print_json(value)
    else:
        sys.stdout.write(f"{sentence}\n")
