"""The form of a backup: one tar with the database's dump, the keys that open its secrets, and what a reader must know."""

from __future__ import annotations

import io
import json
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tracker.errors import TrackerError

README = """\
A backup of Generation Tracker. Whoever has it can read every stored secret: keep it as safe as the keys themselves.

  database.dump   the database (pg_restore reads it)
  secret-keys     the value of TRACKER_SECRET_KEYS that opens its secrets
  about.json      what wrote it

Restore it while the tracker is stopped; the file that you found this in is FILE:

  tracker restore FILE

With servers of your own, TRACKER_DATABASE_URL names an empty database and TRACKER_SECRET_KEYS holds the keys (`tar -xOf FILE secret-keys`).
With the embedded servers both are put into TRACKER_HOME. Then `tracker doctor` looks at everything.

Stored copies (TRACKER_ARTIFACTS_URL) are files of their own: copy them with the tools of their store.
"""
DUMP, KEYS, ABOUT = "database.dump", "secret-keys", "about.json"


@dataclass(frozen=True)
class Backup:
    """An unpacked backup: the dump as a file, the keys, the schema's revision and the version of pg_dump that wrote it."""

    dump: Path
    secret_keys: str
    schema: str
    pg_dump: int

    def opened_by(self, secret_keys: str) -> bool:
        """Whether these keys are the backup's own, newer ones in front of them or not: the oldest one finds secrets again."""
        ours, theirs = (
            [key.strip() for key in keys.split(",") if key.strip()] for keys in (secret_keys, self.secret_keys)
        )
        return ours[-len(theirs) :] == theirs


def pack(into: IO[bytes], dump: Path, secret_keys: str, about: dict[str, Any]) -> None:
    """Write a backup to an open file. Nothing is sought, so that it may be a pipe."""
    with tarfile.open(fileobj=into, mode="w|") as archive:
        for name, text in {"README": README, ABOUT: json.dumps(about) + "\n", KEYS: secret_keys + "\n"}.items():
            entry = _ours(tarfile.TarInfo(name))
            entry.size, entry.mtime = len(text.encode()), int(time.time())
            archive.addfile(entry, io.BytesIO(text.encode()))
        archive.add(dump, DUMP, filter=_ours)


def unpack(file: IO[bytes], folder: Path) -> Backup:
    """Read a backup, from a pipe if need be, into files in `folder`. Raises TrackerError for anything else."""
    try:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for entry in archive:
                if entry.name in {DUMP, KEYS, ABOUT} and entry.isreg():
                    archive.extract(entry, folder, filter="data")
        about = json.loads((folder / ABOUT).read_text())
        (folder / DUMP).stat()  # it comes last, and is missing when the rest was cut off
        return Backup(folder / DUMP, (folder / KEYS).read_text().strip(), str(about["schema"]), int(about["pg_dump"]))
    except (tarfile.TarError, FileNotFoundError, KeyError, ValueError) as wrong:
        raise TrackerError("this is no backup of a tracker, or not all of one") from wrong


def _ours(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode, entry.uid, entry.gid, entry.uname, entry.gname = 0o600, 0, 0, "", ""
    return entry
