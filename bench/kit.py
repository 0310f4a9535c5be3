"""What every benchmark shares: medians over interleaved rounds, tables, the machine's line, and results as JSON in bench/results."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results"
PACKAGES = ("celery", "kombu", "redis", "requests", "SQLAlchemy", "psycopg", "pycurl", "orjson", "fastapi", "uvicorn")

Row = Mapping[str, Any]


def quantile(values: Iterable[float], share: float) -> float:
    """The value below which `share` of them lie (nearest rank); nan for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def medians(rounds: Sequence[Row]) -> dict[str, Any]:
    """One row from several: the median of every number, the first of everything else, and how many rounds there were."""
    merged: dict[str, Any] = {}
    for name, first in rounds[0].items():
        values = [row[name] for row in rounds if name in row]
        number = isinstance(first, int | float) and not isinstance(first, bool)
        merged[name] = median(values) if number else first
    return {**merged, "rounds": len(rounds)}


def wait_for(condition: Callable[[], Any], seconds: float, *, pause: float = 0.02) -> bool:
    """Look at a condition until it holds; False when the time was over first."""
    ends = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends:
            return False
        time.sleep(pause)
    return True


def rest_until(moment: float) -> None:
    """Sleep until this value of time.monotonic(): pacing, not synchronisation."""
    time.sleep(max(0.0, moment - time.monotonic()))


def say(line: str) -> None:
    """Progress goes to standard error, so that standard output holds the tables alone."""
    print(line, file=sys.stderr, flush=True)


def markdown(rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    """A table of `columns` (key in the row: heading), aligned so that it reads in a terminal as well as in Markdown."""
    cells = [[cell(row.get(key)).replace("|", "\\|") for key in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns.values(), *cells, strict=True)]
    lines = [list(columns.values()), ["-" * width for width in widths], *cells]
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def cell(value: Any) -> str:
    """A value as the tables show it: numbers with as many places as tell something."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case float() if abs(value) >= 1000:
            return f"{value:,.0f}"
        case float() if abs(value) >= 100:
            return f"{value:.0f}"
        case float() if abs(value) >= 10:
            return f"{value:.1f}"
        case float():
            return f"{value:.3f}".rstrip("0").rstrip(".") if abs(value) < 0.1 else f"{value:.2f}"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def machine() -> dict[str, Any]:
    """Where this ran. Figures of two machines are never comparable; ratios of one run are."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), ""
    )
    memory = next((int(line.split()[1]) // 2**20 for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0)
    return {
        "cpu": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": memory,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def versions() -> dict[str, str]:
    """The packages and servers that the figures depend on, and our own commit."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES}
    found["commit"] = _said("git", "-C", str(ROOT), "rev-parse", "--short", "HEAD")
    return found


def _said(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def verdict(name: str, value: float, bound: float, *, at_least: bool) -> dict[str, Any]:
    """One claim with its bound, as the tables show it."""
    met = value >= bound if at_least else value <= bound
    return {"claim": name, "measured": value, "bound": f"{'>=' if at_least else '<='} {bound:g}", "met": met}


CLAIMS = {"claim": "claim", "measured": "measured", "bound": "bound", "met": "met"}


def finish(name: str, tables: Sequence[Mapping[str, Any]], *, notes: Sequence[str] = (), raw: Any = None) -> Path:
    """Print the tables and keep everything as JSON. A table is {title, columns, rows}."""
    about = {"benchmark": name, "at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine()}
    result = {**about, "versions": versions(), "tables": list(tables), "notes": list(notes), "raw": raw}
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}-{result['at'].replace(':', '').replace('+0000', 'Z')}.json"
    path.write_text(json.dumps(result, indent=1, default=str) + "\n")
    print(as_text(result))
    say(f"kept in {path.relative_to(ROOT)}")
    return path


def as_text(result: Mapping[str, Any]) -> str:
    """One result as Markdown: the same on the screen and in the documentation."""
    m = result["machine"]
    where = f"{m['cores']} cores of {m['cpu']}, {m['memory_gb']} GB, Linux {m['kernel']}, Python {m['python']}"
    with_ = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    parts = [f"### {result['benchmark']} ({result['at']})", f"{where}; load before {m['load_before']}. {with_}."]
    for table in result["tables"]:
        parts += [f"**{table['title']}**", markdown(table["rows"], table["columns"])]
    parts += [f"- {note}" for note in result["notes"]]
    return "\n\n".join(parts) + "\n"
