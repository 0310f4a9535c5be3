"""`tracker artifacts verify` and `rules`: whether stored copies still are what was stored, and what a project keeps."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Any

import typer

from tracker.cli.options import AsJson, Project, moment

group = typer.Typer(name="artifacts", help="Stored copies.", no_args_is_help=True)


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
        service, begins = session.services.artifacts, moment(since, session.now()) if since else None
        found = service.verify(session.project_id, begins)
        for artifact, wrong in _progressing(found, service.count(session.project_id, begins)):
            checked += 1
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


def _progressing(items: Iterator[Any], total: int) -> Iterator[Any]:
    from rich.progress import track

    from tracker.cli.render import console

    screen = console(error=True)
    shown = track(
        items, description="verifying", total=total, console=screen, disable=not screen.is_terminal, transient=True
    )
    yield from ((one.artifact, one.wrong) for one in shown)


@group.command()
def rules(
    *,
    download: Annotated[
        str | None, typer.Option(help="Kinds kept where a registration does not say: all, none, or video,thumbnail.")
    ] = None,
    keep_for: Annotated[str | None, typer.Option(help="Remove copies after this: 30d, 12h, or forever.")] = None,
    keep_bytes: Annotated[str | None, typer.Option(help="Remove the oldest beyond this: 100GB, or all.")] = None,
    quota: Annotated[str | None, typer.Option(help="Fetch nothing beyond this: 200GB, or none.")] = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Show, and with options change, what a project keeps."""
    from dataclasses import asdict, replace

    from tracker.cli.render import print_json
    from tracker.cli.session import opened

    with opened(project) as session:
        before = session.services.keeping.rules(session.project_id)
        wanted = replace(before, **_changes(download=download, keep_for=keep_for, keep_bytes=keep_bytes, quota=quota))
        if wanted != before:
            session.services.keeping.put_rules(session.project_id, wanted)
    shown = {**asdict(wanted), "keep_for": wanted.keep_for and wanted.keep_for.total_seconds()}
    if as_json:
        print_json(shown)
        return
    for name, value in shown.items():
        plain = "all" if value == () else ", ".join(value) if isinstance(value, tuple) else value
        sys.stdout.write(f"{name:<12} {'-' if plain is None else plain}\n")


def _changes(**given: str | None) -> dict[str, Any]:
    read: dict[str, Any] = {"download": _kinds, "keep_for": _span, "keep_bytes": _size, "quota": _size}
    names = {"quota": "quota_bytes"}
    return {names.get(name, name): read[name](value) for name, value in given.items() if value is not None}


def _kinds(value: str) -> tuple[str, ...] | None:
    from tracker.core.generation import KINDS

    if value in {"all", "none"}:
        return () if value == "all" else None
    kinds = tuple(part.strip() for part in value.split(","))
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise typer.BadParameter(f"{', '.join(unknown)}: the kinds are {', '.join(KINDS)}")
    return kinds


def _span(value: str) -> timedelta | None:
    found = re.fullmatch(r"(\d{1,6})([mhd])", value)
    if value == "forever":
        return None
    if found is None:
        raise typer.BadParameter("write 30d, 12h, 90m or forever")
    return timedelta(**{{"m": "minutes", "h": "hours", "d": "days"}[found[2]]: int(found[1])})


def _size(value: str) -> int | None:
    found = re.fullmatch(r"(\d{1,9})\s*([KMGT]?)B?", value.upper())
    if value in {"none", "all"}:
        return None
    if found is None:
        raise typer.BadParameter("write 500MB, 100GB, a number of bytes, or none")
    return int(found[1]) << 10 * " KMGT".index(found[2] or " ")
