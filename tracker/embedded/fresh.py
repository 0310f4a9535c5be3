"""Removes what a stopped tracker keeps, to begin again. It only ever deletes names that the tracker itself has made."""

from __future__ import annotations

import shutil
from pathlib import Path

from tracker.embedded import home
from tracker.embedded.account import SHARED, place
from tracker.settings import Settings

SERVERS = ("postgres", "valkey", "postgres.earlier", "valkey.earlier", "postgres.new")
OURS = (*SERVERS, "artifacts", "logs", "run", "state.json", "secrets.json", "api-key", "lock")


def remove(settings: Settings) -> list[Path]:
    """Delete the home's files and its database, and the demonstration's below it; the folders that were there.

    Raises AlreadyRunningError while a tracker runs on either.
    """
    root = settings.home.expanduser().resolve()
    homes = [path for path in (root / "demo", root) if path.is_dir()]
    for lodging in [home.move_in(settings.changed(home=path)) for path in homes]:
        elsewhere = place(lodging.path)
        if elsewhere.parent == SHARED:
            shutil.rmtree(elsewhere, ignore_errors=True)
        for name in OURS:
            _delete(lodging.path / name)
        lodging.leave()
        if not any(lodging.path.iterdir()):
            lodging.path.rmdir()
    return homes


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
