"""The unprivileged account that the servers run as when we are root, and where its files can lie.

PostgreSQL refuses to run as root, and nobody else may look below root's closed folders. So as root the servers' files lie where
their account can reach them. The folders above are never changed.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracker.errors import TrackerError

SHARED = Path("/var/lib/generation-tracker")
"""Where root keeps what an unprivileged server must reach: databases by the hash of their home, and copies of the binaries."""
CANDIDATES = ("nobody", "daemon")


@dataclass(frozen=True)
class Account:
    """A user of the operating system, by number."""

    uid: int
    gid: int


def server_account() -> Account | None:
    """The account for servers, or None where they simply run as the user we already are."""
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise TrackerError(
        "started as root, but there is no user `nobody` for the servers to run as; start as an ordinary user"
    )


def identity(account: Account | None) -> dict[str, Any]:
    """What a new process must be told to run as that account."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": ()}


def place(directory: Path) -> Path:
    """Where the files that belong to `directory` can lie: there, or as root below a closed folder at a path made from its name."""
    directory = directory.resolve()
    account = server_account()
    if account is None or _open_all_the_way(directory, account):
        return directory
    return SHARED / hashlib.sha256(str(directory).encode()).hexdigest()[:16]


def make_directory(directory: Path) -> None:
    """Create a private folder (0700) that belongs to the servers' account, and the one above where that is missing too."""
    if SHARED in directory.parents:
        make_shared()
    for folder in (directory.parent, directory):
        if not folder.exists():
            folder.mkdir(mode=0o700, parents=True)
            give((folder,))


def make_shared() -> None:
    """Root's folder for all homes: it holds nothing but private folders and public programs, so everybody may pass through it."""
    SHARED.mkdir(mode=0o755, parents=True, exist_ok=True)
    SHARED.chmod(0o755)  # whatever the umask was


def give(paths: Iterable[Path]) -> None:
    """Hand files over to the servers' account; nothing to do for an ordinary user."""
    account = server_account()
    if account is not None:
        for path in paths:
            os.chown(path, account.uid, account.gid, follow_symlinks=False)


def private_file(path: Path, text: str) -> Path:
    """Write a file that only the servers' account (and root) can read; it never exists with wider rights or half written."""
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    give((unfinished,))
    return unfinished.replace(path)


def can_reach(path: Path, account: Account) -> bool:
    """Whether the account can open what lies at `path`."""
    return _open_all_the_way(path, account) and _allows(path, account, stat.S_IRUSR)


def _open_all_the_way(directory: Path, account: Account) -> bool:
    existing = [folder for folder in (directory, *directory.parents) if folder.is_dir()]
    return all(_allows(folder, account, stat.S_IXUSR) for folder in existing)


def _allows(path: Path, account: Account, owner_bit: int) -> bool:
    status = path.stat()
    # The same right stands three and six bits lower for the group and for others.
    shift = 0 if status.st_uid == account.uid else 3 if status.st_gid == account.gid else 6
    return bool(status.st_mode & (owner_bit >> shift))
