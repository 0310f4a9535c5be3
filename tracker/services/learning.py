"""What polls teach the clocks, and what the clocks say of the next poll. Evidence is gathered in memory and stored once per batch."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from math import sqrt
from time import monotonic

from tracker.core.schedule import BUCKETS, Clock, Evidence, position
from tracker.store import clocks
from tracker.store.batches import Asked
from tracker.store.clocks import Delta, Learned
from tracker.store.db import Database, Transaction
from tracker.store.due import SHORTEST_CLAIM

CLOCKS_FRESH = 10.0
"""Seconds that folded clocks are kept in a process: upkeep folds no more often."""
SHORT = SHORTEST_CLAIM - 1
"""Seconds. A shorter gap than this is worth a write of its own: the due time is pulled back."""
TOLERANCE = 1.25
"""How far a gap may be off: a quarter costs a hundredth of what polls and waiting cost together, a write costs more."""
MOST_SPREAD = 1.1
SOONEST = 0.5
"""Seconds between two polls of one generation at least: no provider's state moves faster than people care."""


class FreshClocks:
    """The clocks that new generations start on, made where they are missing and kept for as long as a fold may be away."""

    def __init__(self, price: float) -> None:
        self._price = price
        self._kept: dict[tuple[str, str], Learned] = {}
        self._since = float("-inf")

    def of(self, tx: Transaction, subjects: Collection[tuple[str, str]]) -> dict[tuple[str, str], Learned]:
        """The clocks of these (provider, subject)."""
        if monotonic() - self._since > CLOCKS_FRESH:
            self._kept, self._since = {}, monotonic()
        kept = self._kept
        missing = [key for key in subjects if key not in kept]
        if missing:
            # A whole replacement: other threads look at the same time.
            kept = self._kept = kept | clocks.ensure(tx, missing, "waiting", price=self._price)
        return {key: kept[key] for key in subjects}


class Learning:
    """One per process. `price` is the schedule's default, in seconds."""

    def __init__(self, database: Database, *, price: float) -> None:
        self._database, self._price = database, price
        self._cold = Learned(0, "", "", "waiting", Clock(), Clock().gaps(price), price, 0.0)
        self._cold_least = min(self._cold.gaps)
        self._learned: dict[int, Learned] = {}
        self._least: dict[int, float] = {}
        self._learned_at = float("-inf")
        self._processing: dict[int, int] = {}
        self._gathered: dict[int, Evidence] = {}

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
                made = clocks.ensure(tx, subjects, "processing", price=self._price)
            self._processing |= {learned.id: made[learned.provider, learned.subject].id for learned in waiting}

    def begun(self, a: Asked) -> Asked:
        """A generation that was seen to be processed now, on the clock of that, which started half-way between our two looks.

        Not when the provider says it did: its clock may be wrong, and what is learned would be as wrong for good.
        """
        before = min(max(a.watched or a.clock, a.clock), a.asked)
        began = before + (a.asked - before) / 2
        return a._replace(clock_id=self._processing.get(a.clock_id, a.clock_id), clock=began)

    def first_gap(self, a: Asked, now: float) -> float:
        """Seconds to the next poll of a generation that has just begun on this clock: the claim knew only the one before."""
        learned = self._clock(a)
        gap = learned.clock.next_gap(now - a.clock, a.price or learned.price, a.longest)
        return _spread(gap, a.longest, a.timeout - now)

    def mended(self, a: Asked, now: float) -> float | None:
        """Seconds to the next poll of a generation seen pending now, where the claim could not arrange it right; None where it did.

        A claim keeps others away for a while, and takes the square root of a price of its own, whatever the law ahead.
        """
        left = a.timeout - now
        if a.price is not None:
            return self._at_own_price(a, a.price, now, left)
        # Most clocks have no gap that short at any age, which is cheaper to know than the gap itself.
        patient = a.longest >= SHORTEST_CLAIM
        if patient and self._least.get(a.clock_id, self._cold_least) * 0.9 > SHORT and left > SHORT:
            return None
        gap = _spread(_interpolated(self._clock(a).gaps, now - a.clock), a.longest, left)
        return None if patient and gap >= SHORT else gap

    def _at_own_price(self, a: Asked, price: float, now: float, left: float) -> float | None:
        learned, longest = self._clock(a), a.longest
        gap = learned.clock.next_gap(now - a.clock, price, longest)
        guess = min(_interpolated(learned.gaps, a.asked - a.clock) * sqrt(price / learned.price), longest)
        guess = max(guess, SHORTEST_CLAIM)
        if 1 / TOLERANCE < gap / guess < TOLERANCE and longest >= SHORTEST_CLAIM:
            return None
        # What the claim arranged beyond its guess is the price of a strained budget, which all have to pay.
        strain = max(1.0, (a.due - a.asked) / (MOST_SPREAD * guess))
        return _spread(gap * strain, longest * strain, left)

    def watch(self, a: Asked, *, done: bool) -> None:
        """A well-formed answer came: the generation was still pending (or is done) at the time it was asked about."""
        before = 0.0 if a.watched is None else max(0.0, a.watched - a.clock)
        at = max(before + 1e-3, a.asked - a.clock)
        evidence = self._gathered.get(a.clock_id)
        if evidence is None:
            evidence = self._gathered[a.clock_id] = Evidence()
        if done:
            evidence.add(self._clock(a).clock.evidence(before, at, done=True))
        else:
            evidence.pending(before, at)

    def _clock(self, a: Asked) -> Learned:
        return self._learned.get(a.clock_id, self._cold)

    @contextmanager
    def handing_over(self) -> Iterator[list[Delta]]:
        """What was gathered since the last time, to be stored within the block; it is gathered still when the block fails."""
        gathered, self._gathered = self._gathered, {}
        sums = {clock_id: evidence.sums() for clock_id, evidence in sorted(gathered.items())}
        try:
            yield [
                Delta(clock_id, *(list(column) for column in zip(*shown, strict=True)))
                for clock_id, shown in sums.items()
                if shown
            ]
        except BaseException:
            for clock_id, shown in sums.items():
                self._gathered.setdefault(clock_id, Evidence()).add(shown)
            raise


def _interpolated(gaps: list[float], age: float) -> float:
    """The gap at this age, before any bound: as the claim has it."""
    where = position(age)
    i = min(int(where), BUCKETS - 1)
    return gaps[i] + (gaps[i + 1] - gaps[i]) * (where - i)


def _spread(gap: float, longest: float, left: float) -> float:
    """Spread by a tenth, and below `longest` too: those who start together must not stay in step."""
    roll = random.random()  # noqa: S311 - spreads load
    return max(SOONEST, min(gap * (0.9 + 0.2 * roll), longest * (0.9 + 0.1 * roll), max(left, 0.0)))
