"""`tracker clocks` (how long generations take, as learned) and `tracker states` (how they may move)."""

from __future__ import annotations

import sys
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracker.cli.options import AsJson

if TYPE_CHECKING:
    from tracker.core.schedule import Clock
    from tracker.store.clocks import Learned

AGES = (0.0, 30.0, 120.0)
"""Seconds. Ages at which the gap to the next poll is told."""
STEPS = (1, 2, 5, 10, 15, 20, 30, 60, 120, 300, 600, 900, 1800, 3600)
"""Seconds that a bar of the histogram may cover."""
MOST_BARS = 12
SHADES = " ▁▂▃▄▅▆▇█"
STRIP = [2.0 * 1800.0 ** (i / 20) for i in range(21)]
"""Ages in seconds, 2 s to 1 h, between which a character stands in the overview: the same for all clocks, so that they compare."""
WIDEST_BAR = 30


def add_to(app: typer.Typer) -> None:
    app.command()(clocks)
    app.command()(states)


def clocks(
    *,
    provider: Annotated[str | None, typer.Argument(help="Show the clocks of this provider in full.")] = None,
    as_json: AsJson = False,
) -> None:
    """How long generations take, as learned by provider and model, and what that is worth: how often each age is asked about.

    `gain` is how many times fewer polls than at a fixed interval, for the same delay, the best of all schedules could need.
    """
    from tracker.cli.render import print_list
    from tracker.cli.session import opened
    from tracker.store import clocks as stored

    with opened() as session, session.services.database.transaction() as tx:
        found, longest = stored.everything(tx), session.settings.poll_longest
    found = [learned for learned in found if provider in {None, learned.provider}]
    rows = [facts(learned, longest) for learned in found]
    if provider is not None and rows and not as_json:
        for learned, row in zip(found, rows, strict=True):
            _print_in_full(learned, row)
        return
    if not as_json:
        for learned, row in zip(found, rows, strict=True):
            row["took"], row["most"] = _time(row["mean_seconds"]), _time(row["nine_tenths_by_seconds"])
            row["strip"], row["gain"] = strip(learned.clock), f"{row['gain_limit']:.1f}x"
    columns = {
        "provider": "provider", "subject": "model", "phase": "phase", "count": "seen", "took": "take about",
        "most": "9 of 10 by", "strip": "2 s     ends     1 h", "gain": "gain",
    }  # fmt: skip
    print_list(rows, as_json=as_json, columns=columns, empty="no clocks yet: they come with the first generations")


def facts(learned: Learned, longest: float) -> dict[str, Any]:
    """What one clock knows, in numbers: seconds, and shares of all tasks."""
    clock = learned.clock

    def gap(age: float) -> float:
        return round(clock.next_gap(age, learned.price, longest), 1)

    edges = bars(clock)
    return {
        "provider": learned.provider,
        "subject": learned.subject or None,
        "phase": learned.phase,
        "count": round(learned.tasks),
        "mean_seconds": round(clock.expected_remaining(0.0), 1),
        "half_by_seconds": round(clock.ended_by(0.5), 1),
        "nine_tenths_by_seconds": round(clock.ended_by(0.9), 1),
        "gain_limit": round(clock.gain_limit(), 2),
        **{f"gap_at_{age:.0f}_s": gap(age) for age in AGES},
        "histogram": [
            {
                "from": a,
                "to": b,
                "ends": round(clock.survival(a) - clock.survival(b), 4),
                "expected_remaining": round(clock.expected_remaining(a), 1),
                "gap": gap(a),
            }
            for a, b in pairwise(edges)
        ],
        "later": round(clock.survival(edges[-1]), 4),
    }


def bars(clock: Clock) -> list[float]:
    """The edges of the bars, in round seconds: nearly all tasks end between the first and the last one."""
    first, last = clock.ended_by(0.01), min(clock.ended_by(0.98), 3600.0)
    step = next((step for step in STEPS if last // step - first // step < MOST_BARS), STEPS[-1])
    start, count = first // step, last // step - first // step + 1
    inside = [step * (start + i) for i in range(int(count) + 1)]
    return inside if start == 0 else [0.0, *inside]


def strip(clock: Clock) -> str:
    """The density of the ends in one line of blocks, over the logarithm of the age."""
    shares = [clock.survival(a) - clock.survival(b) for a, b in pairwise(STRIP)]
    return "".join(SHADES[round(share / max(shares) * (len(SHADES) - 1))] for share in shares)


def _print_in_full(learned: Learned, row: dict[str, Any]) -> None:
    from tracker.cli.render import console, span, table

    name = " ".join(filter(None, (learned.provider, learned.subject)))
    what = "from processing to the end" if learned.phase == "processing" else "until processing, else the end"
    seen = f"seen {row['count']} times" if row["count"] else "never seen: a guess"
    half, most = _time(row["half_by_seconds"]), _time(row["nine_tenths_by_seconds"])
    sys.stdout.write(
        f"{name}: {what}, {seen}\n"
        f"takes about {_time(row['mean_seconds'])}, half by {half}, 9 of 10 by {most}\n"
        f"the best of all schedules needs {row['gain_limit']:.1f} times fewer polls than a fixed interval\n"
    )
    highest = max([bar["ends"] for bar in row["histogram"]] + [row["later"]])
    lines = [
        {
            "age": _ages(bar["from"], bar["to"]), "ends": _bar(bar["ends"], highest),
            "left": _time(bar["expected_remaining"]), "gap": span(bar["gap"]),
        }
        for bar in row["histogram"]
    ]  # fmt: skip
    lines.append({"age": "later", "ends": _bar(row["later"], highest)})
    columns = {"age": "age", "ends": "end then", "left": "still to go", "gap": "next poll after"}
    console().print(table(lines, columns))
    sys.stdout.write("\n")


def _time(seconds: float) -> str:
    """In seconds while that is how people count."""
    from tracker.cli.render import span

    return f"{seconds:.0f} s" if 10 <= seconds < 600 else span(seconds)  # noqa: PLR2004 - tenths below, minutes above


def _ages(a: float, b: float) -> str:
    minutes = b > 120 and a % 60 == b % 60 == 0  # noqa: PLR2004 - as people write it
    return f"{a / 60:.0f}-{b / 60:.0f} min" if minutes else f"{a:.0f}-{b:.0f} s"


def _bar(share: float, highest: float) -> str:
    return f"{share:4.0%} {'█' * round(share / highest * WIDEST_BAR)}"


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
