"""What a newcomer does with `make run`, in this folder: start it, see the examples through to the end, and press Ctrl-C.

Fails when an example is missing, when the stop is not clean, or when a process is left. Standard library only: nothing is set up yet.
"""

# ruff: noqa: INP001 - a script, not a package
from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

LIMIT = 600.0
"""Seconds for the set-up, the start and the examples."""
THROUGH = "generations were tracked to completed, their webhooks delivered and verified, their files stored"
STOPPED = "everything is stopped"
INTERRUPTED = {-signal.SIGINT, 128 + signal.SIGINT, 2}
"""What make answers to Ctrl-C, by itself or through a shell."""


def main() -> int:
    """Returns the exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background would hand on that it is ignored
    # A session of its own, as a terminal has it: Ctrl-C reaches make and whatever it runs.
    running = subprocess.Popen(
        ["make", "run"],  # noqa: S607 - whichever make this newcomer has
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    limit = threading.Timer(LIMIT, os.killpg, [running.pid, signal.SIGTERM])
    limit.start()
    said = []
    for line in _lines(running):
        said.append(line)
        if THROUGH in line:
            os.killpg(running.pid, signal.SIGINT)
    limit.cancel()
    faults = _faults("".join(said), running.wait())
    for fault in faults:
        sys.stdout.write(f"make run: {fault}\n")
    return 1 if faults else 0


def _lines(running: subprocess.Popen[str]) -> Iterator[str]:
    for line in running.stdout or ():
        sys.stdout.write(line)
        sys.stdout.flush()
        yield line


def _faults(said: str, status: int) -> list[str]:
    checks = {
        "the examples were not seen through": THROUGH in said,
        "it did not say that everything is stopped": STOPPED in said,
        "something had to be killed": "was killed" not in said,
        f"it ended with status {status}": status in INTERRUPTED,
        f"these are left: {', '.join(_left()) or 'none'}": not _left(),
    }
    return [fault for fault, good in checks.items() if not good]


def _left() -> list[str]:
    """Processes that belong to this folder (Linux), after a moment in which the last of them may end."""
    ends = time.monotonic() + 5
    while (found := list(_ours())) and time.monotonic() < ends:
        time.sleep(0.1)  # noqa: TID251 - on a condition, with a deadline
    return found


def _ours() -> Iterator[str]:
    here = os.fsencode(str(Path.cwd() / ".tracker"))
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue  # it has ended, or belongs to somebody else
        if here in command or here in environment:
            yield f"{entry.name} {command.replace(bytes(1), b' ').decode(errors='replace')[:80]}"


if __name__ == "__main__":
    sys.exit(main())
