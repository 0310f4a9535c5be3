"""What is late, and what holds it back: its own account or receiver (an outage, a rate, a cap), or nobody but ourselves.

For people who ask, not for the hot path: it looks at everything that is due.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from tracker.core.circuit import OPENS
from tracker.core.pausing import FAILING
from tracker.store import flights, sending
from tracker.store.db import Transaction, text

RECENTLY = timedelta(seconds=10)
"""A purse that was emptied within this is what holds the rest back: it is spent as fast as it fills."""


class Held(StrEnum):
    """What keeps due work from being done although workers are there."""

    PAUSED = "paused"
    ASKED_TO_WAIT = "asked to wait"
    CIRCUIT = "circuit"
    RATE = "rate"
    CAP = "cap"


@dataclass(frozen=True, slots=True)
class Lane:
    """One account or receiver: by how many seconds its oldest due work is late (0: nothing is due), and what holds it back."""

    name: str
    late: float
    held: Held | None
    until: datetime | None
    """When it may be asked again, where that is known."""
    rate: float | None
    cap: int
    failing: int
    """Failures in a row."""
    replayed: int = 0
    """Deliveries of a replay that wait: they go one by one, and are late by their nature."""


_PURSE = f"""least(greatest(n.rate_limit * {sending.BURST}, 1),
             r.tokens + n.rate_limit * extract(epoch FROM :now - r.refilled_at))::float8"""
_ACCOUNTS = f"""
SELECT c.name || ' (' || array_to_string(c.providers, ', ') || ')' || CASE j.name WHEN 'default' THEN '' ELSE ' of ' || j.name END AS name,
       c.state = 'paused' AS paused, c.blocked_until AS until, c.failing, c.requests_per_second AS rate, c.concurrency AS cap,
       c.tokens, c.refilled_at, {flights.HAVE} AS have,
       coalesce((SELECT sum(f.asks) FROM flights f WHERE f.credential_id = c.id AND f.until > :now), 0) AS flying, 0 AS replayed,
       extract(epoch FROM :now - (SELECT min(p.due_at) FROM polls p WHERE p.credential_id = c.id AND p.lane = 0)) AS late
  FROM credentials c JOIN projects j ON j.id = c.project_id
 WHERE CAST(:id AS int) IS NULL OR c.id = :id ORDER BY c.id"""
_RECEIVERS = f"""
WITH due AS MATERIALIZED (
    SELECT receiver_id, min(due_at) FILTER (WHERE lane < 3) AS oldest, count(*) FILTER (WHERE lane = 3) AS replayed
      FROM deliveries WHERE state = 'pending' AND due_at <= :now AND (lease_until IS NULL OR lease_until <= :now) GROUP BY 1)
SELECT coalesce(n.url, r.host) AS name, false AS paused,
       greatest(r.quiet_until, r.asked_until) AS until, r.failing, n.rate_limit AS rate, r.in_flight_cap AS cap,
       r.tokens, r.refilled_at, {_PURSE} AS have, due.replayed,
       (SELECT count(*) FROM deliveries d WHERE d.receiver_id = r.id AND d.lease_until > :now) AS flying,
       extract(epoch FROM :now - due.oldest) AS late
  FROM due JOIN receivers r ON r.id = due.receiver_id LEFT JOIN endpoints n ON n.id = r.endpoint_id
 WHERE n.enabled IS NOT FALSE AND r.given_up_at IS NULL ORDER BY r.id"""


def accounts(tx: Transaction, now: datetime, credential_id: int | None = None) -> list[Lane]:
    """Every provider account, or one of them. Late checks do not count: they come after everything else."""
    rows = tx.execute(text(_ACCOUNTS), {"now": now, "id": credential_id})
    return [_lane(row, now, open_from=FAILING) for row in rows]


def receivers(tx: Transaction, now: datetime) -> list[Lane]:
    """Every webhook receiver that anything is due for; what waits for one that is off is ended, not late."""
    return [_lane(row, now, open_from=OPENS) for row in tx.execute(text(_RECEIVERS), {"now": now})]


def _lane(row: Any, now: datetime, *, open_from: int) -> Lane:
    late = max(0.0, float(row.late or 0.0))
    return Lane(row.name, late, _held(row, now, open_from), row.until, row.rate, row.cap, row.failing, row.replayed)


def _held(row: Any, now: datetime, open_from: int) -> Held | None:
    waits = row.until is not None and row.until > now
    if row.paused:
        return Held.PAUSED
    if row.failing >= open_from:
        return Held.CIRCUIT
    if waits:
        return Held.ASKED_TO_WAIT
    if row.rate is not None and (row.have < 1 or (row.tokens < 1 and now - row.refilled_at < RECENTLY)):
        return Held.RATE
    return Held.CAP if row.flying >= row.cap else None


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim that still holds: since when, until when, and whether a worker has taken its batch."""

    since: datetime
    until: datetime
    taken: bool


def lease(tx: Transaction, generation_id: UUID, now: datetime) -> Lease | None:
    """The flight that a generation's latest claim belongs to, while it is under way."""
    rows = tx.execute(
        text(
            "SELECT f.batch_id, f.until, f.taken, p.asked_at"
            " FROM polls p JOIN flights f ON f.credential_id = p.credential_id AND f.until > :now"
            " WHERE p.generation_id = :id AND p.asked_at IS NOT NULL"
        ),
        {"id": generation_id, "now": now},
    )
    for row in rows:
        # A batch is named and its polls are claimed at one moment, which stands in both.
        if row.batch_id.int >> 80 == int(row.asked_at.timestamp() * 1000):
            return Lease(row.asked_at, row.until, row.taken)
    return None
