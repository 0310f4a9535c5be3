"""Brings a backup into a home whose tracker is stopped: the embedded PostgreSQL runs alone for as long as it takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tracker.embedded import home, ports, recovery
from tracker.embedded.account import place
from tracker.embedded.home import Lodging
from tracker.embedded.installation import POSTGRES_PORT
from tracker.embedded.postgres import Postgres
from tracker.errors import ConfigurationError
from tracker.services import backups
from tracker.settings import Settings


def restore(settings: Settings, file: Path, *, replace: bool) -> str:
    """Restore the database and put the backup's keys into the home; returns the schema's revision.

    Raises AlreadyRunningError while a tracker runs there, ConflictError for a database that is not empty (unless `replace`).
    """
    lodging = home.move_in(settings)
    try:
        with backups.opened(file, lodging.path) as backup:
            given = settings.secret_keys
            if given is not None and not backup.opened_by(given.get_secret_value()):
                raise ConfigurationError("TRACKER_SECRET_KEYS", "its keys are not those of this backup", "unset it")
            with _database(lodging) as url:
                revision = backups.restore(url, backup, replace=replace)
            home.keep_secret_keys(lodging.files, backup.secret_keys)
            return revision
    finally:
        lodging.leave()


@contextmanager
def _database(lodging: Lodging) -> Iterator[str]:
    directory = place(lodging.path) / "postgres"
    recovery.end_leftovers(home.read_state(lodging.files), directory)
    passwords, just_made = home.server_passwords(lodging.files)
    if just_made:
        home.set_aside(directory)
    server = Postgres(
        directory,
        port=ports.free_port(POSTGRES_PORT),
        password=passwords["postgres_password"],
        log=lodging.logs / "postgres.log",
    )
    try:
        server.start()
        yield server.url
    finally:
        server.stop()
        ports.release(server.port)
