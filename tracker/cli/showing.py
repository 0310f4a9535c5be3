"""`tracker show` and `tracker watch`: one generation with its history, or all that move, as they move."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from datetime import datetime
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from tracker.cli.generations import COLUMNS, Provider, State, Tag, checked_states, row
from tracker.cli.options import AsJson, GenerationId, Project, known_id
from tracker.core.generation import Generation
from tracker.core.lifecycle import FINAL

if TYPE_CHECKING:
    from tracker.cli.session import Session

LOOK_EVERY = 0.5
"""Seconds between two looks at the database while following."""
ROWS = 20
"""Lines of the live table: what a small terminal holds."""


def add_to(app: typer.Typer) -> None:
    app.command()(show)
    app.command()(watch)


def show(
    *,
    id_: GenerationId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it is final.")] = False,
    why: Annotated[bool, typer.Option("--why", help="Why it is not asked about at this moment.")] = False,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """One generation: its state, result, history and copies."""
    from tracker.cli.render import print_json, print_json_line
    from tracker.cli.session import opened
    from tracker.cli.why import reasons
    from tracker.core.events import generation_fields

    with opened(project) as session:
        key = known_id("gen", "generation", id_)
        g = session.services.generations.get(session.project_id, key)
        if as_json:
            fields = generation_fields(g, session.settings.base_url)
            print_json(fields | ({"why": reasons(session, g)} if why else {}))
        else:
            _tell(session, g, why=reasons(session, g) if why else [])
        if not follow:
            return
        for step in _steps_to_come(session, key):
            if as_json:
                print_json_line(_transition(step))
            else:
                sys.stdout.write(_line(step) + "\n")
                sys.stdout.flush()


def _tell(session: Session, g: Generation, why: list[str]) -> None:
    from tracker.cli.render import ago, print_facts
    from tracker.core import ids

    now = session.now()
    facts = {
        "id": ids.public("gen", g.id), "state": g.state.value, "provider": f"{g.provider} ({g.credential})", "task id": g.task_id,
        "kind": g.kind, "model": g.model, "provider status": g.provider_status,
        "progress": None if g.progress is None else f"{g.progress:.0%}",
        "error": g.error and f"{g.error.code}: {g.error.message}",
        "last problem": g.last_problem
        and f"{g.last_problem.code}: {g.last_problem.message} ({g.last_problem.in_a_row} in a row, {ago(g.last_problem.at, now)})",
        "polls": g.polls, "tags": g.tags, "metadata": g.metadata, "webhook": g.webhook_url,
    }  # fmt: skip
    times = ("registered_at", "submitted_at", "last_polled_at", "next_poll_at", "expected_at", "finished_at")
    facts |= {
        name.removesuffix("_at").replace("_", " "): getattr(g, name) and ago(getattr(g, name), now) for name in times
    }
    facts |= {"times out": None if g.state in FINAL else ago(g.timeout_at, now)}
    facts |= {f"{o.kind} {o.index}": o.url for o in g.outputs} | _copies(g)
    print_facts(facts | {f"why {number}" if number > 1 else "why": reason for number, reason in enumerate(why, 1)})
    sys.stdout.write("\n")
    for step in session.services.generations.transitions(session.project_id, g.id):
        sys.stdout.write(_line(step) + "\n")
    sys.stdout.flush()


def _copies(g: Generation) -> dict[str, str]:
    from tracker.cli.render import size_of

    return {f"copy of {a.kind} {a.index}": f"{a.state}, {size_of(a.size or a.bytes_done)}" for a in g.artifacts}


def _steps_to_come(session: Session, key: UUID) -> Iterator[Any]:
    seen = len(session.services.generations.transitions(session.project_id, key))
    pause = Event()
    with suppress(KeyboardInterrupt):
        while True:
            final = session.services.generations.get(session.project_id, key).state in FINAL
            steps = session.services.generations.transitions(session.project_id, key)
            yield from steps[seen:]
            seen = len(steps)
            if final:
                return
            pause.wait(LOOK_EVERY)


def _transition(step: Any) -> dict[str, Any]:
    from tracker.core.times import rfc3339

    fields = {
        "sequence": step.sequence,
        "from": step.from_state,
        "to": step.to_state,
        "provider_status": step.provider_status,
    }
    return fields | {"at": rfc3339(step.at), "detail": step.detail}


def _line(step: Any) -> str:
    clock = step.at.astimezone().strftime("%H:%M:%S")
    word = f"  ({step.provider_status})" if step.provider_status else ""
    return f"{clock}  {step.from_state or '-':<10} -> {step.to_state}{word}"


def watch(
    *,
    state: State = None,
    provider: Provider = None,
    tag: Tag = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Generations as they move, newest first, until Ctrl-C. Without a terminal: a line for each change."""
    from tracker.cli.render import console
    from tracker.cli.session import opened
    from tracker.store.generations import Filters

    filters, screen, pause = Filters(checked_states(state), provider, tag=tag), console(), Event()
    live = None if as_json or not screen.is_terminal else _live(screen)
    told: dict[UUID, tuple[str, str | None]] = {}
    with opened(project) as session, live or nullcontext(), suppress(KeyboardInterrupt):
        while True:
            found, _ = session.services.generations.page(session.project_id, filters, ROWS if live else 200)
            now = session.now()
            if live is not None:
                live.update(_table(found, now), refresh=True)
            else:
                _tell_changes(found, told, session.settings.base_url, as_json=as_json)
            pause.wait(LOOK_EVERY)


def _live(screen: Any) -> Any:
    from rich.live import Live

    return Live(console=screen, auto_refresh=False)


def _table(found: list[Generation], now: datetime) -> Any:
    from tracker.cli.render import table

    return table([row(g, now) for g in found], COLUMNS) if found else "no generations yet"


def _tell_changes(
    found: list[Generation], told: dict[UUID, tuple[str, str | None]], base_url: str, *, as_json: bool
) -> None:
    from tracker.cli.render import print_json_line
    from tracker.core import ids
    from tracker.core.events import generation_fields

    for g in reversed(found):
        now = (g.state.value, g.provider_status)
        if told.get(g.id) == now:
            continue
        told[g.id] = now
        if as_json:
            print_json_line(generation_fields(g, base_url))
        else:
            sys.stdout.write(f"{ids.public('gen', g.id)}  {g.state:<10}  {g.provider_status or '-'}\n")
            sys.stdout.flush()
