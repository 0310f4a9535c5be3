"""One child of the supervisor: how it is started, watched and ended together with everything that it started itself.

Children must be launched from the main thread: Linux ties the order "end when your parent ends" to the thread that forked.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tracker.embedded.account import Account, identity
from tracker.embedded.logfile import last_lines, open_log

PR_SET_PDEATHSIG = 1
PAUSE = 0.02
"""Seconds between two looks at a condition."""


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    """Look at a condition until it holds or the time is over; whether it held."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(PAUSE)
    return True


class Child:
    """A program in a session and process group of its own, so that a Ctrl-C in the terminal reaches the supervisor alone."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        environment: Mapping[str, str],
        log: Path,
        directory: Path,
        account: Account | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        orphan_signal: signal.Signals | None = None,
        grace: float = 10.0,
    ) -> None:
        self.name, self.command, self.environment = name, [str(part) for part in command], dict(environment)
        self.log, self.directory, self.account = log, directory, account
        self.stop_signal, self.orphan_signal, self.grace = stop_signal, orphan_signal or stop_signal, grace
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        """Start it, without waiting for anything. Its output goes to its log, one file for each name."""
        with open_log(self.log) as output:
            self.process = subprocess.Popen(  # noqa: S603 - the command is ours
                self.command,
                env=self.environment,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent(self.orphan_signal),  # noqa: PLW1509 - no other thread holds a lock that it needs
                **identity(self.account),
            )

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        return self.process.pid if self.process is not None and self.running else None

    @property
    def running(self) -> bool:
        """Whether it was launched and has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def sign(self) -> str:
        """A part of its command line by which the next supervisor can tell that a process id still means this child."""
        return self.command[2] if self.command[1] == "-m" else Path(self.command[0]).name

    @property
    def last_words(self) -> str:
        """The end of its log, to explain why it ended."""
        return last_lines(self.log)

    def ask_to_stop(self) -> None:
        """Send its stop signal and return at once."""
        if self.process is not None and self.running:
            self.process.send_signal(self.stop_signal)

    def kill(self) -> None:
        """End it now, and all that is left of its process group."""
        if self.process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> bool:
        """Stop it within its grace; False when it had to be killed."""
        self.ask_to_stop()
        willing = eventually(lambda: not self.running, self.grace)
        self.kill()
        return willing


def describe(status: int) -> str:
    """An exit status in words."""
    if status >= 0:
        return f"exit status {status}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"


def _end_with_parent(order: signal.Signals) -> Callable[[], None] | None:
    """What the new process does before its program runs: ask the kernel for `order` when the supervisor dies (Linux only)."""
    if sys.platform != "linux":
        return None
    prctl, parent, number = ctypes.CDLL(None, use_errno=True).prctl, os.getpid(), int(order)

    def before_exec() -> None:
        prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return before_exec


def adopted(known: set[int]) -> Iterator[int]:
    """Process ids that the kernel made our children because their own parent died (see `become_reaper`)."""
    for entry in Path("/proc").iterdir() if sys.platform == "linux" else ():
        if entry.name.isdigit() and int(entry.name) not in known and _parent(entry) == os.getpid():
            yield int(entry.name)


def _parent(entry: Path) -> int | None:
    try:
        # The program's name stands in brackets and may hold anything, so the fields are counted from the last bracket.
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return None
