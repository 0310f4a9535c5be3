"""`tracker backup` and `tracker restore`: the database and the keys that open its secrets, in one file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer

from tracker.cli.options import AsJson
from tracker.errors import ConfigurationError, TrackerError

if TYPE_CHECKING:
    from tracker.settings import Settings


def add_to(app: typer.Typer) -> None:
    app.command()(backup)
    app.command()(restore)


def backup(
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file to write (default: tracker-<time>.tar); - is standard output."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the database and its secret keys to one file that only you can read."""
    from tracker.cli.render import print_json, size_of
    from tracker.cli.session import settings_here
    from tracker.services import backups

    settings = settings_here()
    target = output or Path(time.strftime("tracker-%Y%m%d-%H%M%S.tar"))
    url, keys = settings.required("database_url"), settings.required("secret_keys")
    if target == backups.PIPE:
        if sys.stdout.isatty():
            raise TrackerError("a backup is not for the screen; send it to a file")
        backups.back_up(url, keys, sys.stdout.buffer, _scratch(settings))
        return
    with _private(target) as file:
        backups.back_up(url, keys, file, target.resolve().parent)
    size = target.stat().st_size
    if as_json:
        print_json({"path": str(target), "size": size})
    else:
        sys.stdout.write(
            f"{target}  {size_of(size)}  database and secret keys; the README inside says how to restore it\n"
        )


def restore(
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `tracker backup` wrote; - is standard input.")],
    replace: Annotated[bool, typer.Option("--replace", help="Although the database is not empty: it is lost.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a backup into an empty database, while the tracker is stopped."""
    from tracker.cli.render import print_json
    from tracker.cli.servers import become
    from tracker.services import backups
    from tracker.settings import load

    settings = load()
    if settings.database_url is None:  # the embedded server is its supervisor's to start
        become(
            "tracker.embedded",
            "restore",
            str(file),
            *(["--replace"] if replace else []),
            *(["--json"] if as_json else []),
        )
    keys = settings.required("secret_keys")
    with backups.opened(file, _scratch(settings)) as found:
        if not found.opened_by(keys):
            raise ConfigurationError(
                "TRACKER_SECRET_KEYS",
                "its keys are not those of this backup",
                f"end the list with `tar -xOf {file} secret-keys`",
            )
        revision = backups.restore(settings.required("database_url"), found, replace=replace)
    if as_json:
        print_json({"restored": str(file), "revision": revision})
    else:
        sys.stdout.write(f"{file} is restored, at schema {revision}; start the tracker, then see `tracker doctor`\n")


@contextmanager
def _private(target: Path) -> Iterator[IO[bytes]]:
    """A new file that only we can read, and that has its name once it is whole."""
    if target.exists():
        raise TrackerError(f"{target} exists already; name another file with --output")
    part = target.with_name(target.name + ".part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _scratch(settings: Settings) -> Path | None:
    """Where a dump may lie for a while: the home if there is one, since /tmp is small in containers."""
    return settings.home if settings.home.is_dir() else None
