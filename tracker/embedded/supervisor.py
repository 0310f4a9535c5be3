"""Keeps children alive: sees within a fraction of a second that one has ended, starts it again, and ends them all in order.

It works in the main thread alone, because Linux ties a child's life to the thread that started it.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import FrameType

from tracker.embedded.child import Child, adopted, describe
from tracker.embedded.logfile import Faults, rotate
from tracker.errors import TrackerError

LOOK_EVERY = 0.1
"""Seconds between two looks at the children."""
PAUSES = (0.0, 0.5, 1.0, 2.0, 3.0)
"""Seconds before the first, second ... restart in a row: at once, then slower, but always well within 5 s."""
SETTLED = 2.0
"""Seconds after which a program that only works in the background has passed its imports and its configuration."""
STEADY = 15.0
"""A child that has lived this many seconds counts as well again."""
HOPELESS = 4
"""Deaths in a row after which a child that was never ready is not going to be."""
ROTATE_EVERY = 5.0
PR_SET_CHILD_SUBREAPER = 36


class StoppedError(TrackerError):
    """The user asked for an end before everything was up."""


class Flag:
    """An event that a signal may set. `threading.Event` has a lock: set by a signal that meets its own waiter, it would wait for ever."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()
        self._given = False

    def set(self) -> None:
        """Raise the flag, once and for all."""
        if not self._given:
            self._given = True
            os.write(self._write, b"!")  # never read, so whoever looks later finds it too

    def is_set(self) -> bool:
        """Whether it was raised."""
        return self._given

    def wait(self, seconds: float) -> bool:
        """Wait for it, at most so long; whether it was raised."""
        return self._given or bool(select.select([self._read], [], [], seconds)[0])


@dataclass
class Orders:
    """What the user asked of the supervisor by signal: to stop, and on the second time to hurry."""

    stop: Flag = field(default_factory=Flag)
    hurry: bool = False

    def listen(self) -> None:
        """Take Ctrl-C, SIGTERM and (unless it is ignored, as under nohup) a closed terminal as the order to stop."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._given)

    def _given(self, _number: int, _frame: FrameType | None) -> None:
        self.hurry = self.stop.is_set()
        self.stop.set()


@dataclass
class Member:
    """A child under supervision. Members of the highest stage end first."""

    child: Child
    stage: int
    launch: Callable[[], None]
    answers: Callable[[], bool] | None = None
    launched_at: float = 0.0
    deaths: int = 0
    restart_at: float | None = None

    @property
    def name(self) -> str:
        """What people call it."""
        return self.child.name

    def ready(self) -> bool:
        """Whether it answers; one that cannot be asked is ready when it has not ended during its first moments."""
        if not self.child.running:
            return False
        return self.answers() if self.answers else time.monotonic() - self.launched_at > SETTLED


class Supervisor:
    """Owns the members. `say` gets one sentence for everything that a person should know; `changed` is called when a process id changes."""

    def __init__(self, say: Callable[[str], None], orders: Orders, changed: Callable[[], None] = lambda: None) -> None:
        self.members: list[Member] = []
        self._once: Child | None = None
        self._say, self._orders, self._changed = say, orders, changed
        self._faults = Faults(say)
        self._rotated_at = float("-inf")
        # What this process had started before is none of ours, and no stray either.
        self._others = frozenset(adopted(set()))

    def launch(self, *members: Member) -> None:
        """Start them and look after them from now on."""
        for member in members:
            self.members.append(member)
            self._launch(member)

    def wait_ready(self, *members: Member, seconds: float) -> None:
        """Go on looking after everything until these are ready. Raises TrackerError with the end of the log of the one that is not."""
        deadline = time.monotonic() + seconds
        while late := [member for member in members if not member.ready()]:
            self.look()
            hopeless = [member for member in late if member.deaths >= HOPELESS]
            if hopeless or time.monotonic() > deadline:
                member = (hopeless or late)[0]
                raise TrackerError(
                    f"{member.name} did not get ready; the end of {member.child.log}:\n{member.child.last_words}"
                )
            self._pause()

    def run_once(self, child: Child, seconds: float) -> None:
        """Run a child to its end. Raises TrackerError with the end of its log unless it succeeds."""
        child.launch()
        self._once = child
        deadline = time.monotonic() + seconds
        try:
            while child.running and time.monotonic() < deadline:
                self.look()
                self._pause()
        finally:
            child.kill()
            self._once = None
        if child.process is None or child.process.returncode != 0:
            raise TrackerError(f"{child.name} failed; the end of {child.log}:\n{child.last_words}")

    def run(self, finished: Callable[[], bool] = lambda: False) -> None:
        """Look after everything until the user wants an end, or `finished` says so."""
        while not self._orders.stop.wait(LOOK_EVERY) and not finished():
            self.look()

    def look(self) -> None:
        """One look at every member: start again those that have ended. Never raises because of a child or of the disk."""
        now = time.monotonic()
        for member in self.members:
            if member.restart_at is not None:
                if now >= member.restart_at:
                    self._launch(member)
            elif not member.child.running:
                self._mourn(member, now)
            elif member.deaths and now - member.launched_at > STEADY:
                member.deaths = 0
        if now - self._rotated_at > ROTATE_EVERY:
            self._rotated_at = now
            for member in self.members:
                with self._faults.survived(f"{member.child.log} cannot be rotated"):
                    rotate(member.child.log)

    def stop(self) -> None:
        """End everything, stage by stage, each within its grace; whoever does not listen is killed."""
        for stage in sorted({member.stage for member in self.members}, reverse=True):
            members = [member for member in self.members if member.stage == stage]
            for member in members:
                member.child.ask_to_stop()
            self._await_end(members)
        self._end_strays()
        self.members.clear()

    def _await_end(self, members: Sequence[Member]) -> None:
        began = time.monotonic()
        while living := [member for member in members if member.child.running]:
            patience = max(member.child.grace for member in living) * (0.1 if self._orders.hurry else 1.0)
            if time.monotonic() - began > patience:
                break
            time.sleep(LOOK_EVERY / 2)
        for member in members:
            if member.child.running:
                self._say(f"{member.name} did not end when asked and was killed")
            member.child.kill()

    def _launch(self, member: Member) -> None:
        member.launched_at, member.restart_at = time.monotonic(), None
        try:
            member.launch()
        except (OSError, TrackerError) as wrong:
            self._say(f"{member.name} could not be started ({wrong})")
            self._plan_restart(member)
            return
        if member.deaths:
            self._say(f"{member.name} was started again (process {member.child.pid})")
        self._changed()

    def _mourn(self, member: Member, now: float) -> None:
        status = member.child.process.returncode if member.child.process else 0
        member.child.kill()  # what is left of its group
        self._end_strays()
        if now - member.launched_at > STEADY:
            member.deaths = 0
        self._plan_restart(member)
        self._say(f"{member.name} has ended ({describe(status)})")
        if member.restart_at is not None and member.restart_at <= now:
            self._launch(member)

    def _plan_restart(self, member: Member) -> None:
        member.restart_at = time.monotonic() + PAUSES[min(member.deaths, len(PAUSES) - 1)]
        member.deaths += 1

    def _end_strays(self) -> None:
        children = [*(member.child for member in self.members), *((self._once,) if self._once else ())]
        known = {child.process.pid for child in children if child.process}.union(self._others)
        for pid in list(adopted(known)):
            with suppress(ProcessLookupError, ChildProcessError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def _pause(self) -> None:
        if self._orders.stop.wait(LOOK_EVERY):
            raise StoppedError("stopped before everything was up")


def become_reaper(*, on: bool = True) -> None:
    """Have the kernel give us the orphans of our children, such as a killed PostgreSQL's sessions, so that none outlives us (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, int(on), 0, 0, 0)
