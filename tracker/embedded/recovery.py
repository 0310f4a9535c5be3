"""Ends what an earlier supervisor of this home left running, before a new one starts. It only touches processes that it can name as ours.

On Linux the kernel has already told them to end and this only waits; elsewhere, and if one hangs, it ends them itself.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tracker.embedded.child import eventually

WILLING = 5.0
"""Seconds for a leftover to end by itself; PostgreSQL writes its checkpoint in this time."""


def end_leftovers(state: Mapping[str, Any], postgres_directory: Path | None) -> list[str]:
    """End the children recorded in `state`, and the server that holds the database folder; names of those that still ran."""
    recorded = {name: (child["pid"], child["sign"]) for name, child in state.get("children", {}).items()}
    if postgres_directory is not None and (pid := _postmaster(postgres_directory)) is not None:
        recorded["postgres"] = (pid, str(postgres_directory))
    living = {name: pid for name, (pid, sign) in recorded.items() if pid and sign in command_line(pid)}
    for name, pid in living.items():
        _send(pid, signal.SIGINT if name == "postgres" else signal.SIGTERM)
    if not eventually(lambda: not any(_alive(pid) for pid in living.values()), WILLING):
        for pid in living.values():
            _send_group(pid)
        eventually(lambda: not any(_alive(pid) for pid in living.values()), WILLING)
    if postgres_directory is not None:
        _forget_dead_postmaster(postgres_directory)
    return sorted(living)


def command_line(pid: int) -> str:
    """The command line of a running process; empty when there is none."""
    if sys.platform == "linux":
        with suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        return ""
    found = subprocess.run(["/bin/ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603 - numbers only
    return found.stdout.strip()


def _alive(pid: int) -> bool:
    return command_line(pid) != ""  # a zombie has none


def _postmaster(directory: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        return int((directory / "postmaster.pid").read_text().splitlines()[0])
    return None


def _forget_dead_postmaster(directory: Path) -> None:
    # PostgreSQL believes its lock file as long as any process has that number: a zombie that nobody collects, or, after a restart of
    # the machine or container, a stranger. Nothing of ours runs on the folder any more, so the file says nothing.
    pid = _postmaster(directory)
    if pid is not None and str(directory) not in command_line(pid):
        (directory / "postmaster.pid").unlink(missing_ok=True)


def _send(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _send_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
