"""`tracker import`: registrations from a file, in batches; a line that is wrong is named, and the others go in."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from tracker.cli.options import AsJson, Project
from tracker.cli.registering import BATCH, checked, told
from tracker.errors import FieldProblem, InvalidError, TrackerError

SEVERAL = ("tags", "events", "download")
"""Columns whose cells hold several values, parted by `;`."""
NUMBERS = ("poll_price", "poll_longest")


@dataclass(frozen=True)
class Line:
    """One registration as it stands in the file, with the place that a person finds it by. `read` counts bytes up to here."""

    number: int
    fields: dict[str, Any] | InvalidError
    read: int


@dataclass
class Tally:
    """What became of the lines."""

    registered: int = 0
    known: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)


def add_to(app: typer.Typer) -> None:
    app.command("import")(import_)


def import_(
    *,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, readable=True, help="*.csv or *.jsonl")
    ],
    provider: Annotated[str | None, typer.Option(help="For lines that name none.")] = None,
    credential: Annotated[str | None, typer.Option(help="For lines that name none.")] = None,
    project: Project = "default",
    as_json: AsJson = False,
) -> None:
    """Register what a file lists: CSV with a header of field names, or one JSON object a line.

    In CSV an empty cell is an absent field, `tags`, `events` and `download` hold several values parted by `;`, and `metadata` is JSON.
    """
    from tracker.cli.session import opened

    readers: dict[str, Callable[[Path], Iterator[Line]]] = {".csv": _csv, ".jsonl": _jsonl, ".ndjson": _jsonl}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise typer.BadParameter("its name must end in .csv or .jsonl", param_hint="FILE")
    defaults = {name: value for name, value in {"provider": provider, "credential": credential}.items() if value}
    tally = Tally()
    with opened(project) as session, _progress(file) as advance:
        lines = reader(file)
        while batch := list(islice(lines, BATCH)):
            forms = [
                line.fields if isinstance(line.fields, InvalidError) else checked(defaults | line.fields)
                for line in batch
            ]
            outcomes = session.services.registration.register_many(session.project_id, forms)
            for line, outcome in zip(batch, outcomes, strict=True):
                _count(tally, file, line, outcome)
            advance(batch[-1].read)
    _summary(tally, as_json=as_json)


def _count(tally: Tally, file: Path, line: Line, outcome: Any) -> None:
    if isinstance(outcome, TrackerError):
        tally.failed.append({"line": line.number, "code": outcome.code, "detail": told(outcome)})
        sys.stderr.write(f"tracker: {file}:{line.number}: {told(outcome)}\n")
    elif outcome.created:
        tally.registered += 1
    else:
        tally.known += 1


def _summary(tally: Tally, *, as_json: bool) -> None:
    if as_json:
        from tracker.cli.render import print_json

        print_json({"registered": tally.registered, "known": tally.known, "failed": tally.failed})
    else:
        sys.stdout.write(
            f"{tally.registered:,} registered, {tally.known:,} known already, {len(tally.failed):,} failed\n"
        )
    if tally.failed:
        raise typer.Exit(1)


def _jsonl(file: Path) -> Iterator[Line]:
    import orjson

    read = 0
    with file.open("rb") as lines:
        for number, raw in enumerate(lines, 1):
            read += len(raw)
            if not raw.strip():
                continue
            try:
                found = orjson.loads(raw.removeprefix(b"\xef\xbb\xbf"))
            except orjson.JSONDecodeError as wrong:
                yield Line(number, _wrong("line", f"it is not JSON ({wrong.msg} at character {wrong.colno})"), read)
                continue
            yield Line(number, found if isinstance(found, dict) else _wrong("line", "it is not a JSON object"), read)


def _csv(file: Path) -> Iterator[Line]:
    # What is not UTF-8 stays visible as half a surrogate pair, which the form refuses with the name of its field.
    with (
        file.open("rb") as raw,
        io.TextIOWrapper(raw, encoding="utf-8-sig", errors="surrogateescape", newline="") as lines,
    ):
        rows = csv.DictReader(lines, restkey="")
        if not {"task_id"} <= set(rows.fieldnames or ()):
            raise InvalidError(FieldProblem(f"{file}:1", "the header names no column task_id"))
        for row in rows:
            yield Line(rows.line_num, _from_cells(row), raw.tell())


def _from_cells(row: dict[str, Any]) -> dict[str, Any] | InvalidError:
    if "" in row:
        return _wrong("line", "it has more cells than the header")
    fields: dict[str, Any] = {name: cell for name, cell in row.items() if cell}
    for name in fields.keys() & set(SEVERAL):
        fields[name] = [part.strip() for part in fields[name].split(";") if part.strip()]
    if fields.get("download") in (["true"], ["all"]):
        fields["download"] = True
    for name in fields.keys() & set(NUMBERS):
        try:
            fields[name] = float(fields[name])
        except ValueError:
            return _wrong(name, "it is no number")
    if "metadata" in fields:
        try:
            fields["metadata"] = json.loads(fields["metadata"])
        except ValueError:
            return _wrong("metadata", "it is not JSON")
    return fields


def _wrong(name: str, message: str) -> InvalidError:
    return InvalidError(FieldProblem(name, message))


class _progress:  # noqa: N801 - used as a function: `with _progress(file) as advance`
    """A bar on a terminal, by bytes read; nothing elsewhere."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __enter__(self) -> Callable[[int], None]:
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        from tracker.cli.render import console

        screen = console(error=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=screen, disable=not screen.is_terminal, transient=True)
        self._bar.start()
        task = self._bar.add_task(self._file.name, total=self._file.stat().st_size)
        return lambda read: self._bar.update(task, completed=read)

    def __exit__(self, *_: object) -> None:
        self._bar.stop()
