"""The folder of partial files: who writes which, and which of them nobody will go on from.

Never guesses: a file that a living process writes is locked, and the kernel gives the lock back when that process dies.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

PARTIAL = ".part"  # the end of partial files' names, which also begin with a dot
YOUNG = 120.0
"""Seconds during which a partial file is left alone: its writer may not have told the database yet."""


class Spool:
    """One folder on a local disk, made at first use."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Where the partial file of this name lies. ValueError for a name that leads elsewhere."""
        if "/" in name or "\0" in name or not name.startswith(".") or not name.endswith(PARTIAL):
            raise ValueError(f"{name[:80]!r} is not the name of a partial file")
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / name

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[Path | None]:
        """The file, locked against every other writer; None while another one writes it."""
        path = self.path(name)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            yield path if _locked(descriptor) and _is_at(path, descriptor) else None
        finally:
            os.close(descriptor)

    def free(self) -> int:
        """Bytes that are free on its disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(self.folder).free

    def sweep(self, awaited: Callable[[Collection[str]], Collection[str]], *, young: float = YOUNG) -> list[str]:
        """Remove partial files that nobody writes and that `awaited` does not name; returns their names."""
        if not self.folder.is_dir():
            return []
        before = time.time() - young
        old = [path for path in self.folder.glob(f".*{PARTIAL}") if _modified(path) < before]
        kept = awaited([path.name for path in old]) if old else ()
        return [path.name for path in old if path.name not in kept and _removed(path)]


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # Some network disks know no locks. Two writers of one file then write the same bytes to the same places,
        # because both hold the same strong ETag; whose claim was lost notices, and stores nothing.
        return True
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the locked file still is the one of that name: a sweep may have removed it in between."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")


def _removed(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not _locked(descriptor):
            return False
        path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)
    return True
