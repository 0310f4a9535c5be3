"""The tick and the housekeeping: notices time that did not count, rings what is due, folds clocks, sweeps what has expired."""

from __future__ import annotations

import logging
from datetime import timedelta

from tracker import bell
from tracker.core import ids
from tracker.providers import batch_sizes
from tracker.services.health import TICK
from tracker.services.recovery import Recovery
from tracker.store import artifacts, clocks, credentials, db, deliveries, idempotency, schedule
from tracker.store.db import Database

log = logging.getLogger(__name__)

DOWN = timedelta(seconds=15)
"""A longer silence between two ticks means that we were down: that time does not count for anybody's deadline."""
FORGOTTEN_AT_ONCE = 2000
"""Deliveries removed in one transaction: it holds their locks for some 50 ms."""

GIVEN_UP_AT_ONCE = 5000
"""Deliveries of receivers that are off ended by one tick, in some 100 ms: a backlog of a million takes minutes, and nobody waits for it."""


class Upkeep:
    """`price` is the schedule's default, for the gaps that the claim reads; deliveries are `kept` once they ended."""

    def __init__(
        self, database: Database, bell_: bell.Bell, recovery: Recovery, *, price: float, kept: timedelta
    ) -> None:
        self._database, self._bell, self._recovery = database, bell_, recovery
        self._price, self._kept = price, kept

    def tick(self) -> None:
        """The safety net under every ring: what is due is rung for, whoever forgot to. Relays get another try at batches."""
        with self._database.transaction() as tx:
            now = db.now(tx)
            credentials.batch_again(tx, now, batch_sizes())
            silence = db.beat(tx, TICK, now)
            if silence is not None and silence > DOWN:
                moved = schedule.extend_deadlines(tx, silence, now)
                log.warning(
                    "nothing ran for %.0f s; the deadlines of %d generations were moved by it",
                    silence.total_seconds(),
                    moved,
                )
            webhooks, downloads = deliveries.any_due(tx, now), artifacts.any_due(tx, now)
        if webhooks:
            self._bell.ring(bell.SEND, bell.WEBHOOK, because="tick")
        if downloads:
            self._bell.ring(bell.FETCH, bell.DOWNLOAD, because="tick")
        self._give_up()
        self._recovery.go_on()

    def _give_up(self) -> None:
        """End what waits for receivers that are off, by a slice."""
        with self._database.transaction() as tx:
            if deliveries.give_up_waiting(tx, db.now(tx), GIVEN_UP_AT_ONCE) < GIVEN_UP_AT_ONCE:
                deliveries.forgive(tx)

    def fold_clocks(self) -> int:
        """Merge what polls showed into the learned clocks; returns how many clocks changed."""
        with self._database.transaction() as tx:
            return clocks.fold(tx, price=self._price, now=db.now(tx))

    def sweep(self) -> int:
        """Forget answers kept for idempotency keys that are old enough; returns how many.

        Deliveries that ended long ago go too, with their attempts.
        """
        self._forget_deliveries()
        with self._database.transaction() as tx:
            return idempotency.sweep(tx, db.now(tx))

    def _forget_deliveries(self) -> None:
        gone = FORGOTTEN_AT_ONCE
        while gone == FORGOTTEN_AT_ONCE:
            with self._database.transaction() as tx:
                ended = db.now(tx) - self._kept
                gone = deliveries.forget(tx, ended=ended, made=ids.uuid7(ended, noise=0), limit=FORGOTTEN_AT_ONCE)
