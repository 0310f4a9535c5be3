"""`tracker clocks` (how long generations take, as learned) and `tracker states` (how they may move)."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from tracker.cli.options import AsJson

AGES = (0.0, 30.0, 120.0)
"""Seconds. Ages at which the gap to the next poll is shown."""


def add_to(app: typer.Typer) -> None:
    app.command()(clocks)
    app.command()(states)


def clocks(*, as_json: AsJson = False) -> None:
    """What is known of the durations, by provider and model, and how far apart the polls are."""
    from tracker.cli.render import print_list, span
    from tracker.cli.session import opened
    from tracker.store import clocks as stored

    with opened() as session, session.services.database.transaction() as tx:
        found, longest = stored.everything(tx), session.settings.poll_longest
    rows: list[dict[str, Any]] = [
        {
            "provider": learned.provider,
            "subject": learned.subject or None,
            "phase": learned.phase,
            "count": round(learned.tasks),
            "mean_seconds": round(learned.clock.expected_remaining(0.0), 1),
            **{f"gap_at_{age:.0f}_s": round(learned.clock.next_gap(age, learned.price, longest), 1) for age in AGES},
        }
        for learned in found
    ]
    if not as_json:
        for row in rows:
            row["took"] = span(row["mean_seconds"])
            row["gaps"] = " ".join(span(row[f"gap_at_{age:.0f}_s"]) for age in AGES)
    columns = {
        "provider": "provider",
        "subject": "model",
        "phase": "phase",
        "count": "learned from",
        "took": "take about",
    }
    columns["gaps"] = f"polls apart at {', '.join(f'{age:.0f}' for age in AGES)} s"
    print_list(rows, as_json=as_json, columns=columns, empty="no clocks yet: they come with the first generations")


def states(
    *,
    mermaid: Annotated[bool, typer.Option("--mermaid", help="As a Mermaid diagram.")] = False,
    as_json: AsJson = False,
) -> None:
    """The states and where each may go."""
    from tracker.cli.render import print_json
    from tracker.core.lifecycle import NEXT

    moves = {state.value: [to.value for to in NEXT if to in nexts] for state, nexts in NEXT.items()}
    if as_json:
        print_json(moves)
    elif mermaid:
        sys.stdout.write(diagram(moves))
    else:
        for state, nexts in moves.items():
            sys.stdout.write(f"{state:<11} -> {', '.join(nexts) or '(final)'}\n")


def diagram(moves: dict[str, list[str]]) -> str:
    """The moves as a Mermaid state diagram."""
    lines = ["stateDiagram-v2", "    [*] --> registered"]
    lines += [f"    {state} --> {to}" for state, nexts in moves.items() for to in nexts]
    lines += [f"    {state} --> [*]" for state, nexts in moves.items() if not nexts]
    return "\n".join(lines) + "\n"
