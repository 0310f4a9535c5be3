"""Backing up and restoring: the database and the keys that open its secrets, in one file, since either without the other is useless."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import tracker
from tracker.errors import ConflictError, TrackerError
from tracker.services.health import TICK, TICK_LATE
from tracker.store import archive, db, dumping, events, migrations
from tracker.store.archive import Backup
from tracker.store.db import Database

PIPE = Path("-")
"""In place of a file: standard input or output."""


def back_up(url: str, secret_keys: str, into: IO[bytes], scratch: Path | None) -> None:
    """Write a backup to an open file. `scratch` is where the dump may lie meanwhile: it needs the room."""
    with tempfile.TemporaryDirectory(prefix="tracker-backup-", dir=scratch) as folder:
        dump = Path(folder) / archive.DUMP
        version = dumping.dump(url, dump)
        about = {
            "version": tracker.__version__, "schema": _revision(url), "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "pg_dump": version,
        }  # fmt: skip
        archive.pack(into, dump, secret_keys, about)


@contextmanager
def opened(file: Path, scratch: Path | None) -> Iterator[Backup]:
    """A backup, unpacked for the time of the block. Raises TrackerError when it is none, or one that this program cannot use."""
    with tempfile.TemporaryDirectory(prefix="tracker-restore-", dir=scratch) as folder:
        if file == PIPE:
            backup = archive.unpack(sys.stdin.buffer, Path(folder))
        else:
            try:
                with file.open("rb") as packed:
                    backup = archive.unpack(packed, Path(folder))
            except OSError as wrong:
                raise TrackerError(f"{file} cannot be read ({wrong.strerror})") from None
        if not migrations.known(backup.schema):
            raise TrackerError(
                f"this backup is of schema {backup.schema}, which this program does not know; install a newer version"
            )
        yield backup


def restore(url: str, backup: Backup, *, replace: bool) -> str:
    """Bring a backup into the database and up to the schema of this program; returns its revision.

    ConflictError, with nothing changed, for a database that holds anything already (unless `replace`), or that a tracker works on.
    """
    database = Database(url, size=1, application="tracker-restore")
    try:
        with database.transaction() as tx:
            if dumping.holds_tables(tx):
                _refuse(tx, replace=replace)
    finally:
        database.close()
    dumping.load(url, backup.dump, written_by=backup.pg_dump, replace=replace)
    migrations.migrate(url)
    database = Database(url, size=1, application="tracker-restore", settings={"statement_timeout": "0"})
    try:
        with database.transaction() as tx:
            events.settle_restored(tx)
    finally:
        database.close()
    return migrations.head()


def _refuse(tx: db.Transaction, *, replace: bool) -> None:
    if not replace:
        raise ConflictError(
            "the database is not empty; restore into an empty one, or add --replace to lose what is in it"
        )
    if db.revision(tx) is not None:
        tick = db.last_beat(tx, TICK)
        if tick is not None and (db.now(tx) - tick).total_seconds() < TICK_LATE:
            raise ConflictError(f"a tracker works on this database; stop it, and wait {TICK_LATE:.0f} s")


def _revision(url: str) -> str:
    database = Database(url, size=1, application="tracker-backup")
    try:
        with database.transaction() as tx:
            return db.revision(tx) or ""
    finally:
        database.close()
