"""One download under way, as its thread and the one that renews its claim both see it. Decides nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Event
from time import monotonic

from tracker.couriers.download import Partial
from tracker.store.artifacts import Wanted


class ClaimLostError(Exception):
    """Another worker has this artifact now."""


class StoppedError(Exception):
    """This process ends: what is on disk stays, and somebody else goes on."""


@dataclass(slots=True)
class Job:
    """One download under way. `done` is written by its thread, `lost` by the one that renews; `ending` is raised once this process ends."""

    wanted: Wanted
    ending: Event
    began: float = field(default_factory=monotonic)
    done: int = 0
    shown: tuple[float, int] = field(default_factory=lambda: (monotonic(), 0))
    lost: bool = False
    resumed: int = 0
    """Bytes that were there when this try began: more at its end is progress."""

    def progress(self, done: int, _total: int | None) -> None:
        self.done = done
        self.check()

    def check(self) -> None:
        """Raises where the work must end here. Called often, on the way in as on the way into the store."""
        if self.lost:
            raise ClaimLostError
        if self.ending.is_set():
            raise StoppedError


Error = dict[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a try ended that will be followed by another."""

    error: Error
    attempts: int
    """Tries in a row without progress, this one included."""
    partial: Partial | None
