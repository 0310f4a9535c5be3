"""The folder of one tracker: who may run on it, its generated secrets, and the record of what runs. Only the supervisor writes here.

A secret lies in a file of mode 0600 inside a folder of mode 0700, and nowhere else.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import string
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from pydantic import SecretStr

from tracker.errors import ConfigurationError, TrackerError
from tracker.settings import Home, Settings

LETTERS = string.ascii_letters + string.digits
KEY_LETTERS = 40
"""About 238 bits: more than anybody can guess."""


class AlreadyRunningError(TrackerError):
    """Another supervisor holds this home."""

    code = "already_running"

    def __init__(self, home: Path, state: Mapping[str, Any]) -> None:
        pid, url = state.get("pid"), state.get("urls", {}).get("api")
        where = f" at {url}" if url else ""
        super().__init__(
            f"a tracker already runs on {home}{where} (process {pid}); stop it there with Ctrl-C, or set TRACKER_HOME to another folder"
        )


@dataclass(frozen=True)
class Lodging:
    """A home that is ours until this process ends: the kernel gives the lock back however that happens."""

    files: Home
    lock: TextIO

    @property
    def path(self) -> Path:
        """The home itself, absolute."""
        return self.files.path

    @property
    def logs(self) -> Path:
        """One file for each child."""
        return self.path / "logs"

    @property
    def runtime(self) -> Path:
        """What only lives as long as the tracker runs."""
        return self.path / "run"

    def leave(self) -> None:
        """Give the home back."""
        self.lock.close()

    def write_state(self, state: Mapping[str, Any]) -> None:
        """Replace the record at once, so that a reader never sees half of it. It holds no secret."""
        _write_private(self.files.state, json.dumps(state, indent=2) + "\n")


def move_in(settings: Settings) -> Lodging:
    """Make the home where it is missing, close it to others, and lock it. Raises AlreadyRunningError."""
    path = settings.home.expanduser().resolve()
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.chmod(0o700)
        lock = (path / "lock").open("a+", encoding="utf-8")
    except OSError as wrong:
        raise ConfigurationError(
            "TRACKER_HOME", f"{path} cannot be used ({wrong.strerror})", "choose a folder that you own"
        ) from None
    files = Home(path)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise AlreadyRunningError(path, read_state(files)) from None
    for folder in ("logs", "run"):
        (path / folder).mkdir(mode=0o700, exist_ok=True)
    return Lodging(files, lock)


def read_state(files: Home) -> dict[str, Any]:
    """What the present or the last tracker of this home wrote down; empty when there was none."""
    return _read_object(files.state)


def server_passwords(files: Home) -> tuple[dict[str, str], bool]:
    """Passwords of the embedded servers, and whether they were made just now (then no database of this home can exist)."""
    return _kept(files, {"postgres_password": lambda: _letters(32), "valkey_password": lambda: _letters(32)})


def with_secrets(settings: Settings, files: Home) -> Settings:
    """The settings with every secret present. In embedded mode a missing one is made and kept, else ConfigurationError names it."""
    wanted = {
        "secret_keys": lambda: urlsafe_b64encode(os.urandom(32)).decode(),
        "flower_auth": lambda: f"tracker:{_letters(20)}",
    }
    missing = {name: make for name, make in wanted.items() if getattr(settings, name) is None}
    if not settings.embedded:
        for name in (*wanted, "bootstrap_api_key"):
            settings.required(name)
        return settings
    kept, _ = _kept(files, missing)
    fields = {name: SecretStr(kept[name]) for name in missing}
    if settings.bootstrap_api_key is None:
        fields["bootstrap_api_key"] = SecretStr(_kept_key(files.api_key))
    return settings.changed(**fields)


def keep_secret_keys(files: Home, secret_keys: str) -> None:
    """Keep these keys instead of those that were generated: they open what was restored."""
    _write_private(
        files.secrets, json.dumps({**_read_object(files.secrets), "secret_keys": secret_keys}, indent=2) + "\n"
    )


def set_aside(directory: Path) -> Path | None:
    """Move away what an earlier home left at our place, since its password and keys are gone; where it is now. One such copy is kept."""
    if not directory.exists():
        return None
    aside = directory.with_name(directory.name + ".earlier")
    shutil.rmtree(aside, ignore_errors=True)
    return directory.rename(aside)


def _kept(files: Home, wanted: Mapping[str, Any]) -> tuple[dict[str, str], bool]:
    found = _read_object(files.secrets)
    made = {name: make() for name, make in wanted.items() if not found.get(name)}
    if made or files.secrets.exists():
        _write_private(files.secrets, json.dumps({**found, **made}, indent=2) + "\n")
    return {**found, **made}, bool(made)


def _kept_key(path: Path) -> str:
    key = path.read_text(encoding="utf-8").strip() if path.exists() else ""
    if not key:
        key = f"trk_{_letters(KEY_LETTERS)}"
    _write_private(path, key + "\n")
    return key


def _letters(count: int) -> str:
    return "".join(secrets.choice(LETTERS) for _ in range(count))


def _read_object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise TrackerError(
            f"{path} is damaged; restore it, or move it away to start with new secrets and an empty database"
        ) from None
    return found if isinstance(found, dict) else {}


def _write_private(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
