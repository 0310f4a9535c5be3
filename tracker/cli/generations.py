"""`tracker list`, `cancel`, `poll` and `download`."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracker.cli.options import AsJson, GenerationId, Project, known_id, moment
from tracker.core.generation import Artifact, Generation
from tracker.errors import TrackerError

if TYPE_CHECKING:
    from rich.progress import Progress

PIECE = 1024 * 1024
State = Annotated[list[str] | None, typer.Option("--state", help="Such as processing (repeat).")]
Provider = Annotated[str | None, typer.Option(help="Of this provider alone.")]
Tag = Annotated[str | None, typer.Option(help="With this tag.")]
COLUMNS = {
    "id": "id",
    "provider": "provider",
    "state": "state",
    "progress": "done",
    "age": "age",
    "next": "next poll",
}


def add_to(app: typer.Typer) -> None:
    app.command("list")(list_)
    app.command()(cancel)
    app.command()(poll)
    app.command()(download)


def list_(
    *,
    state: State = None,
    provider: Provider = None,
    tag: Tag = None,
    task_id: Annotated[str | None, typer.Option(help="With this provider's task id.")] = None,
    since: Annotated[str | None, typer.Option(help="Registered since: 2h, 1d, or a time.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=200, help="At most so many.")] = 20,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Generations, newest first."""
    from tracker.cli.render import print_json, print_list
    from tracker.cli.session import opened
    from tracker.core import ids
    from tracker.core.events import generation_fields
    from tracker.store.generations import Filters

    with opened(project) as session:
        now = session.now()
        filters = Filters(checked_states(state), provider, task_id, tag, moment(since, now) if since else None)
        found, more = session.services.generations.page(session.project_id, filters, limit)
    if as_json:
        data = [generation_fields(g, session.settings.base_url) for g in found]
        print_json({"data": data, "next_cursor": more and ids.public("gen", more)})
        return
    print_list([row(g, now) for g in found], as_json=False, columns=COLUMNS, empty="no generations")
    if more:
        sys.stdout.write(f"there are more than these {limit} (--limit, --since)\n")


def checked_states(states: list[str] | None) -> tuple[str, ...]:
    """The states that were asked for; a wrong word is a usage error that lists the right ones."""
    from tracker.core.generation import State as Known

    for state in states or ():
        if state not in set(Known):
            raise typer.BadParameter(f"{state!r} is no state; states are {', '.join(Known)}", param_hint="--state")
    return tuple(states or ())


def row(g: Generation, now: datetime) -> dict[str, Any]:
    """A generation as a line of a table."""
    from tracker.cli.render import ago, span
    from tracker.core import ids

    done = "100 %" if g.state == "completed" else None if g.progress is None else f"{g.progress:.0%}".replace("%", " %")
    return {
        "id": ids.public("gen", g.id),
        "provider": g.provider,
        "state": g.state.value,
        "progress": done,
        "age": span(now - g.registered_at),
        "next": ago(g.next_poll_at, now),
    }


def cancel(
    *, ids: Annotated[list[str], typer.Argument(metavar="ID...")], project: Project = "default", as_json: AsJson = False
) -> None:
    """Stop tracking generations. Their providers are not told and go on."""
    _each(ids, "cancel", project, as_json=as_json)


def poll(
    *, ids: Annotated[list[str], typer.Argument(metavar="ID...")], project: Project = "default", as_json: AsJson = False
) -> None:
    """Ask the provider now, whatever the schedule says."""
    _each(ids, "poll", project, as_json=as_json)


def _each(texts: list[str], action: str, project: str, *, as_json: bool) -> None:
    from tracker.cli.render import print_json
    from tracker.cli.session import opened
    from tracker.core.events import generation_fields

    done, failed = [], False
    with opened(project) as session:
        act: Callable[..., Generation] = getattr(session.services.generations, action)
        for text in texts:
            try:
                g = act(session.project_id, known_id("gen", "generation", text))
            except TrackerError as error:
                failed = True
                sys.stderr.write(f"tracker: {text}: {error}\n")
                continue
            done.append(generation_fields(g, session.settings.base_url))
            if not as_json:
                sys.stdout.write(f"{text}  {g.state}{'  (asking now)' if action == 'poll' else ''}\n")
    if as_json:
        print_json({"data": done})
    if failed:
        raise typer.Exit(1)


def download(
    *,
    id_: GenerationId,
    kind: Annotated[str, typer.Option(help="video, video_raw, thumbnail, last_frame, audio or image.")] = "video",
    index: Annotated[int, typer.Option(min=0, help="Which of several of this kind.")] = 0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file, a folder, or - for standard output.")
    ] = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Write a stored copy to a file, checked against its SHA-256. Interrupted, it goes on where it stopped when it is called again."""
    from tracker.cli.render import print_json, size_of
    from tracker.cli.session import opened
    from tracker.core.events import artifact_fields

    with opened(project) as session:
        found = session.services.artifacts.find(session.project_id, known_id("gen", "generation", id_), kind, index)
        read = partial(session.services.artifacts.read, found)
        if str(output) == "-":
            for chunk in read():
                sys.stdout.buffer.write(chunk)
            return
        target = (output / found.filename) if output and output.is_dir() else output or Path(found.filename)
        _write(target, read, found.artifact)
    if as_json:
        print_json({"path": str(target), "artifact": artifact_fields(found.artifact, session.settings.base_url)})
    else:
        sys.stdout.write(f"{target}  {size_of(found.artifact.size)}  sha256 {found.artifact.sha256}\n")


def _write(target: Path, read: Callable[[int], Iterator[bytes]], artifact: Artifact) -> None:
    part = target.with_name(target.name + ".part")
    try:
        begun = part.exists()
        found = _complete(part, read, artifact.size or 0)
        if found != artifact.sha256 and begun:  # what an earlier call left may be of something else
            part.unlink()
            found = _complete(part, read, artifact.size or 0)
        if found != artifact.sha256:
            part.unlink()
            raise TrackerError(f"the stored copy is damaged: its SHA-256 is {found}, not {artifact.sha256}")
        part.replace(target)
    except OSError as wrong:
        raise TrackerError(f"{target} cannot be written ({wrong.strerror})") from None


def _complete(part: Path, read: Callable[[int], Iterator[bytes]], size: int) -> str:
    """Write what the partial file lacks; returns the SHA-256 of all of it. A terminal shows how it goes."""
    digest = hashlib.sha256()
    with part.open("a+b") as file, _bar() as bar:
        task = bar.add_task(part.name.removesuffix(".part"), total=size)
        file.seek(0)
        while piece := file.read(PIECE):
            digest.update(piece)
        start = file.tell()
        bar.update(task, completed=start)
        for chunk in read(start) if start < size else ():
            file.write(chunk)
            digest.update(chunk)
            bar.update(task, advance=len(chunk))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def _bar() -> Progress:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from tracker.cli.render import console

    screen = console(error=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True)
