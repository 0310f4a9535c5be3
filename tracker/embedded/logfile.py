"""The log files of the children: one for each name, bounded in size by the supervisor, whatever the child writes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

LARGEST = 10 * 1024 * 1024
"""Bytes at which a log moves to `<name>.1`; so all logs of a home together stay below about 250 MB."""


def open_log(path: Path) -> BinaryIO:
    """Open for appending, with private rights; what a child writes always goes to the present end of the file."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


def rotate(path: Path, largest: int = LARGEST) -> bool:
    """Keep a log that has grown too large as `<name>.1` and go on with an empty one; whether that was needed.

    The child keeps its file open, so the text is copied and the file cut; a line written between the two steps is lost. Raises OSError
    when there is no room for the copy: then both logs are as they were.
    """
    try:
        if path.stat().st_size < largest:
            return False
    except FileNotFoundError:
        return False
    unfinished = path.with_name(path.name + ".1.new")
    try:
        with open_log(unfinished) as copy, path.open("rb") as present:
            copy.truncate(0)  # somebody may have been killed here
            shutil.copyfileobj(present, copy)
        unfinished.replace(path.with_name(path.name + ".1"))
    finally:
        unfinished.unlink(missing_ok=True)
    os.truncate(path, 0)
    return True


def last_lines(path: Path, lines: int = 15, most: int = 8_192) -> str:
    """The end of a log, for a person."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - most))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""


class Faults:
    """Faults of the disk that must not end whoever meets them: each is told once, until it is over."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._told: set[str] = set()

    @contextmanager
    def survived(self, what: str) -> Iterator[None]:
        """Go on after an OSError of this block. `what` says what could not be done."""
        try:
            yield
        except OSError as wrong:
            if what not in self._told:
                self._told.add(what)
                self._say(f"{what} ({wrong.strerror or wrong}); everything else goes on")
        else:
            self._told.discard(what)
