"""Whether published batches are taken: two heartbeats, one left where batches go out and one where a worker takes them.

The lag cannot tell, because a claim moves its polls to their next times whether or not anybody asks.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tracker.store import db, switches
from tracker.store.db import Transaction, text

SENT, TAKEN = "batch sent", "batch taken"
EVERY = timedelta(seconds=1)
"""A process leaves a sign at most this often: what happens many times a second must not cost a statement each time."""
UNTAKEN = timedelta(seconds=30)
"""Twice the life of a message: when none was taken for so long after one went out, nobody takes them."""


class Signs:
    """The signs that one process leaves, in the transactions in which they come about."""

    def __init__(self) -> None:
        self._left: dict[str, datetime] = {}

    def sent(self, tx: Transaction, now: datetime) -> None:
        """A batch goes out. What is kept is the first one since another was taken."""
        if self._time_for(SENT, now):
            tx.execute(
                text(
                    "INSERT INTO heartbeats AS h (name, at) VALUES (:sent, :now) ON CONFLICT (name) DO UPDATE SET at = excluded.at"
                    " WHERE h.at <= (SELECT t.at + CAST(:every AS interval) FROM heartbeats t WHERE t.name = :taken)"
                ),
                {"sent": SENT, "taken": TAKEN, "now": now, "every": EVERY},
            )

    def taken(self, tx: Transaction, now: datetime) -> None:
        """A worker has taken a batch."""
        if self._time_for(TAKEN, now):
            db.beat(tx, TAKEN, now)

    def _time_for(self, name: str, now: datetime) -> bool:
        if name in self._left and abs(now - self._left[name]) < EVERY:
            return False
        self._left[name] = now
        return True


def untaken(tx: Transaction, now: datetime) -> float | None:
    """Seconds for which batches have gone out and none was taken; None while they are taken, nothing is due, or polls are stopped."""
    if "polls" in switches.stopped(tx):
        return None
    sent, taken = db.last_beat(tx, SENT), db.last_beat(tx, TAKEN)
    # A sign of taking may be older than the taking itself by as much as signs are apart.
    if sent is None or (taken is not None and sent <= taken + EVERY) or now - sent <= UNTAKEN:
        return None
    return (now - sent).total_seconds()
