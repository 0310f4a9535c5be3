"""How answers look: JSON as the API gives it, or tables that fit 80 columns, with times as people say them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

STATE_STYLES = {
    "completed": "green", "stored": "green", "delivered": "green", "active": "green", "failed": "red", "paused": "red",
    "processing": "yellow", "timed_out": "magenta", "queued": "blue", "pending": "blue", "cancelled": "dim",
}  # fmt: skip
WIDE = 400
"""Columns where there is no terminal: lines are as long as they need to be, since something else reads them."""


WHOLE = frozenset({"id", "state"})
RIGHT = frozenset({"polls", "size", "attempts", "count", "age", "took"})
"""Columns that are never cut, and columns of numbers."""


def console(*, error: bool = False) -> Console:
    """Where tables go; colours only on a terminal."""
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else WIDE
    return Console(file=stream, highlight=False, width=width, soft_wrap=False)


def print_json(value: Any) -> None:
    """One value, readable, in UTF-8."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def print_json_line(value: Any) -> None:
    """One value a line, at once, for programs that follow."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str) + "\n")
    sys.stdout.flush()


def print_list(rows: Sequence[Mapping[str, Any]], *, as_json: bool, columns: Mapping[str, str], empty: str) -> None:
    """A list: as the API's `{"data": [...]}`, or a table with these columns (title by key)."""
    if as_json:
        print_json({"data": list(rows), "next_cursor": None})
    elif rows:
        console().print(table(rows, columns))
    else:
        sys.stdout.write(f"{empty}\n")


def table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> Table:
    """A table that never breaks a line: what does not fit ends in an ellipsis, but ids and states always stand in full."""
    from rich.table import Table
    from rich.text import Text

    shown = [[text_of(row.get(key)) for key in columns] for row in rows]
    found = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 1, 0, 0))
    for number, (key, title) in enumerate(columns.items()):
        whole = max(len(cells[number]) for cells in shown) if shown and key in WHOLE else None
        justify: Literal["left", "right"] = "right" if key in RIGHT else "left"
        found.add_column(title, no_wrap=True, overflow="ellipsis", justify=justify, min_width=whole)
    for cells in shown:
        found.add_row(*(Text(cell, style=STATE_STYLES.get(cell, "")) for cell in cells))
    return found


def text_of(value: Any) -> str:
    """A value in a cell."""
    if value is None or value in ([], ()):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def print_facts(facts: Mapping[str, Any]) -> None:
    """One thing with its fields, a line each; long values are folded below themselves."""
    from rich.table import Table
    from rich.text import Text

    found = Table.grid(padding=(0, 2, 0, 0))
    found.add_column(style="dim", no_wrap=True)
    found.add_column(overflow="fold")
    for name, value in facts.items():
        if value not in (None, [], (), {}, ""):
            cell = text_of(value)
            found.add_row(name, Text(cell, style=STATE_STYLES.get(cell, "")))
    console().print(found)


def event_line(at: str, event: Mapping[str, Any], *more: str) -> str:
    """An event in one line: when (RFC 3339), what, about which, the provider's words; then `more`."""
    about = event.get("data") or {}
    words = (about.get("id"), about.get("provider_status"), (about.get("error") or {}).get("message"), *more)
    return plain(f"{at[11:19]}  {event.get('type', '-'):<22}  {'  '.join(str(word) for word in words if word)}")


def plain(text: str) -> str:
    """What others wrote, in one line that cannot steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def ago(at: datetime | None, now: datetime) -> str:
    """`at` seen from `now`: `3 min ago`, `in 12 s`, `now`."""
    if at is None:
        return "-"
    seconds = (at - now).total_seconds()
    if abs(seconds) < 1:
        return "now"
    return f"in {span(seconds)}" if seconds > 0 else f"{span(-seconds)} ago"


def span(seconds: float | timedelta) -> str:
    """A span in its two largest units' worth of precision: `4.2 s`, `3 min`, `2 h 5 min`, `3 d`."""
    seconds = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if seconds < 10:  # noqa: PLR2004 - tenths tell something only there
        return f"{seconds:.1f} s"
    minutes, hours, days = round(seconds / 60), seconds / 3600, seconds / 86_400
    if seconds < 100:  # noqa: PLR2004
        return f"{seconds:.0f} s"
    if minutes < 100:  # noqa: PLR2004
        return f"{minutes} min"
    if hours < 48:  # noqa: PLR2004
        return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"
    return f"{days:.0f} d"


def size_of(count: int | None) -> str:
    """Bytes as people say them."""
    if count is None:
        return "-"
    value, units = float(count), iter(("B", "kB", "MB", "GB", "TB"))
    unit = next(units)
    while value >= 1000 and unit != "TB":  # noqa: PLR2004 - decimal units, as disks are sold
        value, unit = value / 1000, next(units)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
