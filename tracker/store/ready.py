"""Which accounts have something due that they may be asked about, and where in the index of the schedule that begins.

A claimed poll leaves its old place in the index behind until the next vacuum. All of these lie before the first poll that is due, and
stepping over them cost more than the claim itself: 23 ms for 200 polls behind 420,000 of them, and 6 ms with what is remembered here.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import NamedTuple

from tracker.store.db import Transaction, text

LAPSE = 5.0
"""Seconds after which everything is looked through from its beginning again."""
OVERLAP = timedelta(seconds=2)
"""What is remembered stays this far behind the present: transactions that are open now write times of when they began."""

# `min` and not EXISTS: the planner may hash an EXISTS, which reads the late lane of all accounts.
READY = text("""
SELECT c.id, f.since, f.late_since
  FROM credentials c
       LEFT JOIN unnest(CAST(:ids AS int[]), CAST(:since AS timestamptz[]), CAST(:late_since AS timestamptz[])) AS h (id, since, late_since)
              ON h.id = c.id
       CROSS JOIN LATERAL (
       SELECT (SELECT min(p.due_at) FROM polls p
                WHERE p.credential_id = c.id AND p.lane = 0 AND p.due_at >= coalesce(h.since, '-infinity')) AS since,
              (SELECT min(p.due_at) FROM polls p
                WHERE p.credential_id = c.id AND p.lane = 1 AND p.due_at >= coalesce(h.late_since, '-infinity')) AS late_since OFFSET 0) f
 WHERE (c.state = 'active' OR c.probe_at <= :now) AND (c.blocked_until IS NULL OR c.blocked_until <= :now)
   AND least(f.since, f.late_since) <= :now
   FOR NO KEY UPDATE OF c SKIP LOCKED""")


class Ready(NamedTuple):
    """An account with something due, and the due times of its first poll and of its first late check; None: there is none."""

    id: int
    since: datetime | None
    late_since: datetime | None


class Starts:
    """Where every account's due polls began when this process looked last. A hint alone, for each process its own.

    A poll may appear before it all the same: after a transaction that took long, a clock that was set back, a crash that took claims back.
    It is found once the hint has lapsed. Of accounts that had nothing due since then there is none.
    """

    def __init__(self) -> None:
        self._known: dict[int, Ready] = {}
        self._whole = monotonic()

    def known(self) -> list[Ready]:
        """What is remembered; nothing when it is time to look through everything."""
        if monotonic() - self._whole >= LAPSE:
            self._known, self._whole = {}, monotonic()
        return list(self._known.values())

    def remember(self, found: Sequence[Ready], now: datetime) -> None:
        """These were found and locked at `now`. What is remembered of others holds: it can only be too early."""
        latest = now - OVERLAP
        for account in found:
            since, late_since = (min(at or latest, latest) for at in account[1:])
            self._known[account.id] = Ready(account.id, since, late_since)


def ready(tx: Transaction, now: datetime, starts: Starts) -> list[Ready]:
    """The accounts with something due, locked for a claim; those that another claim holds are left out.

    In a statement of its own: the claim then sees the flights of whoever held them before us.
    """
    known = starts.known()
    found = tx.execute(
        READY,
        {
            "now": now,
            "ids": [account.id for account in known],
            "since": [account.since for account in known],
            "late_since": [account.late_since for account in known],
        },
    )
    accounts = [Ready(*row) for row in found]
    starts.remember(accounts, now)
    return accounts


def lag(tx: Transaction, now: datetime) -> float:
    """Seconds by which the latest-running due poll of any active credential is late; 0 when nothing is."""
    late = tx.execute(
        text(
            """
            SELECT extract(epoch FROM :now - min(d.due_at)) FROM credentials c CROSS JOIN LATERAL (
                SELECT due_at FROM polls p WHERE p.credential_id = c.id AND p.lane = 0 ORDER BY due_at LIMIT 1) d
             WHERE c.state = 'active' AND (c.blocked_until IS NULL OR c.blocked_until <= :now)"""
        ),
        {"now": now},
    ).scalar_one()
    return max(0.0, float(late or 0.0))
