"""What polls teach the clocks, and what the clocks say of the next poll. Evidence is gathered in memory and stored once per batch."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from math import sqrt
from time import monotonic

from tracker.core.schedule import BUCKETS, Clock, passage, position
from tracker.store import clocks
from tracker.store.clocks import Delta, Learned
from tracker.store.db import Database
from tracker.store.due import Asked

CLOCKS_FRESH = 10.0
"""Seconds that folded clocks are kept in a process: upkeep folds no more often."""
SOONEST = 0.5
"""Seconds between two polls of one generation at least: no provider's state moves faster than people care."""


class Learning:
    """One per process. `price` and `longest` are the schedule's defaults, in seconds."""

    def __init__(self, database: Database, *, price: float, longest: float) -> None:
        self._database, self._price, self._longest = database, price, longest
        self._learned: dict[int, Learned] = {}
        self._least: dict[int, float] = {}
        self._learned_at = float("-inf")
        self._processing: dict[int, int] = {}
        self._gathered: dict[int, dict[int, list[float]]] = {}

    def refresh(self, clock_ids: Iterable[int]) -> None:
        """Read the clocks again when they are stale, or one of these is new. Opens a transaction of its own."""
        stale = monotonic() - self._learned_at > CLOCKS_FRESH
        if stale or any(key not in self._learned for key in clock_ids):
            with self._database.transaction() as tx:
                self._learned = {learned.id: learned for learned in clocks.everything(tx)}
            self._least = {key: min(learned.gaps) for key, learned in self._learned.items()}
            self._learned_at = monotonic()

    def prepare_processing(self, clock_ids: Iterable[int]) -> None:
        """Make the clocks of those that begin now, before the record: a row that is being made keeps others waiting."""
        began = set(clock_ids) - self._processing.keys()
        waiting = [learned for key in began if (learned := self._learned.get(key)) and learned.phase == "waiting"]
        if waiting:
            subjects = {(learned.provider, learned.subject) for learned in waiting}
            with self._database.transaction() as tx:
                made = clocks.ensure(tx, subjects, "processing", price=self._price, longest=self._longest)
            self._processing |= {learned.id: made[learned.provider, learned.subject].id for learned in waiting}

    def processing_clock(self, a: Asked) -> tuple[int | None, datetime | None]:
        """The clock of a generation that begins to be processed, and when it did: half-way between our two looks.

        Not when the provider says it did: its clock may be wrong, and what is learned would be as wrong for good.
        """
        clock_id = self._processing.get(a.clock_id)
        if clock_id is None:
            return None, None
        before = min(max(a.watched_at or a.clock_from, a.clock_from), a.asked_at)
        return clock_id, before + (a.asked_at - before) / 2

    def sooner(self, a: Asked, now: datetime, than: float) -> float | None:
        """Seconds to the next poll of a generation seen pending now, where that is less than `than`; None otherwise."""
        learned = self._learned.get(a.clock_id)
        gaps = learned.gaps if learned else _COLD
        # Most clocks have no gap that short at any age, which is cheaper to know than the gap itself.
        if (
            a.price is None
            and self._least.get(a.clock_id, _COLD_LEAST) * 0.9 > than
            and (a.known.timeout_at - now).total_seconds() > than
        ):
            return None
        gap = self._gap(a, now, gaps, learned.price if learned else self._price)
        return gap if gap < than else None

    @staticmethod
    def _gap(a: Asked, now: datetime, gaps: list[float], price: float) -> float:
        at = position((now - a.clock_from).total_seconds())
        i = min(int(at), BUCKETS - 1)
        gap = gaps[i] + (gaps[i + 1] - gaps[i]) * (at - i)
        if a.price is not None:
            gap *= sqrt(a.price / price)
        left = (a.known.timeout_at - now).total_seconds()
        return max(SOONEST, min(gap * random.uniform(0.9, 1.1), a.known.longest, max(left, 0.0)))  # noqa: S311 - spreads load

    def watch(self, a: Asked, *, done: bool) -> None:
        """A well-formed answer came: the generation was still pending (or is done) at the time it was asked about."""
        before = 0.0 if a.watched_at is None else max(0.0, (a.watched_at - a.clock_from).total_seconds())
        at = max(before + 1e-3, (a.asked_at - a.clock_from).total_seconds())
        self._gather(a.clock_id, self._clock(a).evidence(before, at, done=True) if done else passage(before, at))

    def _clock(self, a: Asked) -> Clock:
        learned = self._learned.get(a.clock_id)
        return learned.clock if learned else Clock()

    @contextmanager
    def handing_over(self) -> Iterator[list[Delta]]:
        """What was gathered since the last time, to be stored within the block; it is gathered still when the block fails."""
        gathered, self._gathered = self._gathered, {}
        try:
            yield [
                Delta(clock_id, list(cells), *(list(column) for column in zip(*cells.values(), strict=True)))
                for clock_id, cells in sorted(gathered.items())
                if cells
            ]
        except BaseException:
            for clock_id, cells in gathered.items():
                self._gather(clock_id, ((bucket, p, e, w) for bucket, (p, e, w) in cells.items()))
            raise

    def _gather(self, clock_id: int, evidence: Iterable[tuple[int, float, float, float]]) -> None:
        cells = self._gathered.setdefault(clock_id, {})
        for bucket, passed, ended, watched in evidence:
            cell = cells.get(bucket)
            if cell is None:
                cells[bucket] = [passed, ended, watched]
            else:
                cell[0] += passed
                cell[1] += ended
                cell[2] += watched


_COLD = Clock().gaps(0.5, 60.0)
_COLD_LEAST = min(_COLD)
