"""The log files of the children: one for each name, bounded in size by the supervisor, whatever the child writes."""

from __future__ import annotations

import os
import shutil
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

    The child keeps its file open, so the text is copied and the file cut; a line written between the two steps is lost.
    """
    try:
        if path.stat().st_size < largest:
            return False
    except FileNotFoundError:
        return False
    with open_log(path.with_name(path.name + ".1")) as previous, path.open("rb") as present:
        previous.truncate(0)
        shutil.copyfileobj(present, previous)
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
