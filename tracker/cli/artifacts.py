"""`tracker artifacts verify`: whether the stored copies still are what was stored."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracker.cli.options import AsJson, Project, moment
from tracker.core.generation import Artifact

if TYPE_CHECKING:
    from tracker.cli.session import Session

group = typer.Typer(name="artifacts", help="Stored copies.", no_args_is_help=True)
PAGE = 200


@group.callback()
def _group() -> None:
    """Stored copies."""


def add_to(app: typer.Typer) -> None:
    app.add_typer(group)


@group.command()
def verify(
    *,
    since: Annotated[str | None, typer.Option(help="Of generations registered since: 2h, 1d, or a time.")] = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Read every stored copy and compare its SHA-256; exit 1 when one is damaged or gone."""
    from tracker.cli.render import print_json
    from tracker.cli.session import opened
    from tracker.core import ids

    checked, broken = 0, []
    with opened(project) as session:
        for artifact in _progressing(list(_stored(session, since))):
            checked += 1
            wrong = _wrong(session, artifact)
            if wrong:
                place = f"{ids.public('gen', artifact.generation_id)} {artifact.kind}/{artifact.index}"
                broken.append({"artifact": place, "detail": wrong})
                sys.stderr.write(f"tracker: {place}: {wrong}\n")
    if as_json:
        print_json({"checked": checked, "broken": broken})
    else:
        sys.stdout.write(f"{checked:,} copies checked, {len(broken):,} broken\n")
    if broken:
        raise typer.Exit(1)


def _stored(session: Session, since: str | None) -> Iterator[Artifact]:
    from dataclasses import replace

    from tracker.store.generations import Filters

    filters = Filters(registered_after=moment(since, session.now()) if since else None)
    more = None
    while True:
        found, more = session.services.generations.page(session.project_id, replace(filters, before_id=more), PAGE)
        for g in found:
            yield from (artifact for artifact in g.artifacts if artifact.state == "stored")
        if more is None:
            return


def _wrong(session: Session, artifact: Artifact) -> str | None:
    service, digest = session.services.artifacts, hashlib.sha256()
    try:
        found = service.find(session.project_id, artifact.generation_id, artifact.kind, artifact.index)
        for chunk in service.read(found):
            digest.update(chunk)
    except Exception as error:  # noqa: BLE001 - each kind of store fails in its own way; all of them mean that it cannot be read
        return f"it cannot be read ({type(error).__name__})"
    return None if digest.hexdigest() == artifact.sha256 else "its SHA-256 differs from what was stored"


def _progressing(items: list[Any]) -> Iterator[Any]:
    from rich.progress import track

    from tracker.cli.render import console

    screen = console(error=True)
    yield from track(items, description="verifying", console=screen, disable=not screen.is_terminal, transient=True)
