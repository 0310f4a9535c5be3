"""Deliveries: one event for one receiver, with every attempt.

Claimed per receiver, each with its own cap in flight, so that nobody waits for somebody else's slow endpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text

from tracker.store.db import Transaction
from tracker.store.rows import records

LEASE = timedelta(seconds=45)
"""Longer than an attempt may take. A lapsed lease is no attempt: the row is due again at once."""

_CLAIM = """
WITH lanes AS MATERIALIZED (
    SELECT r.id, r.in_flight_cap
                 - (SELECT count(*) FROM deliveries x WHERE x.receiver_id = r.id AND x.lease_until > :now) AS room
      FROM receivers r
     WHERE EXISTS (SELECT FROM deliveries d WHERE d.receiver_id = r.id AND d.state = 'pending' AND d.due_at <= :now)
       FOR NO KEY UPDATE OF r SKIP LOCKED),
due AS MATERIALIZED (
    SELECT d.id FROM lanes l CROSS JOIN LATERAL (
           SELECT d.id, d.due_at FROM deliveries d
            WHERE d.receiver_id = l.id AND d.state = 'pending' AND d.due_at <= :now
            ORDER BY d.due_at LIMIT greatest(l.room, 0) FOR UPDATE SKIP LOCKED) d
     ORDER BY d.due_at LIMIT :n)
UPDATE deliveries SET due_at = :lease_until, lease_until = :lease_until, fence = fence + 1
 WHERE id = ANY (ARRAY(SELECT id FROM due))
RETURNING id"""

_CLAIMED = """
SELECT d.id, d.fence, d.project_id, d.event_id, d.endpoint_id, d.generation_id, d.url, d.type, d.attempts, e.body, n.headers, n.ca,
       n.schedule, n.url AS endpoint_url
  FROM deliveries d JOIN events e ON e.id = d.event_id LEFT JOIN endpoints n ON n.id = d.endpoint_id
 WHERE d.id = ANY (:ids) ORDER BY d.id"""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One claimed delivery with all that sending it needs."""

    id: UUID
    fence: int
    project_id: UUID
    event_id: UUID
    endpoint_id: UUID | None
    generation_id: UUID | None
    url: str
    type: str
    attempts: int
    body: bytes
    headers: bytes | None
    ca: str | None
    schedule: tuple[float, ...] | None


def claim(tx: Transaction, *, now: datetime, limit: int) -> list[Outgoing]:
    """Claim up to `limit` due deliveries, under a lease."""
    claimed = tx.execute(text(_CLAIM), {"now": now, "n": limit, "lease_until": now + LEASE})
    ids = [row.id for row in claimed]
    if not ids:
        return []
    return [_outgoing(row) for row in tx.execute(text(_CLAIMED), {"ids": ids})]


def _outgoing(row: Any) -> Outgoing:
    fields = {name: getattr(row, name) for name in Outgoing.__dataclass_fields__}
    # An endpoint whose address was mended gets what is still waiting at its new address.
    fields["url"] = row.endpoint_url or row.url
    fields["schedule"] = None if row.schedule is None else tuple(row.schedule)
    return Outgoing(**fields)


_TYPES = {
    "id": "uuid", "project_id": "uuid", "event_id": "uuid", "generation_id": "uuid", "receiver_id": "int",
    "endpoint_id": "uuid", "type": "text", "url": "text", "due_at": "timestamptz", "created_at": "timestamptz",
}  # fmt: skip


def insert(tx: Transaction, rows: Sequence[dict[str, Any]]) -> None:
    """Store deliveries in the transaction of their event; one that exists already stays as it is."""
    if rows:
        tx.execute(
            text(
                f"INSERT INTO deliveries ({', '.join(_TYPES)}) SELECT {', '.join(_TYPES)} FROM {records(_TYPES)}"
                " ON CONFLICT ON CONSTRAINT deliveries_receiver_unique DO NOTHING"
            ),
            {"rows": orjson.dumps(rows).decode()},
        )


@dataclass(frozen=True, slots=True)
class Attempted:
    """How one attempt ended, and what follows from it."""

    delivery_id: UUID
    fence: int
    number: int
    at: datetime
    duration_ms: int
    status_code: int | None
    error_class: str | None
    response: str
    worker: str
    state: str
    due_at: datetime | None


def record(tx: Transaction, attempted: Sequence[Attempted]) -> int:
    """Store attempts whose claim still holds; returns how many did."""
    held = 0
    for attempt in sorted(attempted, key=lambda a: a.delivery_id):
        fields = {name: getattr(attempt, name) for name in Attempted.__dataclass_fields__}
        kept = tx.execute(
            text(
                "UPDATE deliveries SET state = :state, attempts = :number, due_at = :due_at, lease_until = NULL"
                " WHERE id = :delivery_id AND fence = :fence AND state = 'pending'"
            ),
            fields,
        )
        if kept.rowcount:
            held += 1
            tx.execute(
                text(
                    "INSERT INTO attempts (delivery_id, number, at, duration_ms, status_code, error_class, response, worker)"
                    " VALUES (:delivery_id, :number, :at, :duration_ms, :status_code, :error_class, :response, :worker)"
                ),
                fields,
            )
    return held


def any_due(tx: Transaction, now: datetime) -> bool:
    """Whether a delivery waits to be sent."""
    return bool(
        tx.execute(
            text(
                "SELECT EXISTS (SELECT FROM receivers r WHERE EXISTS (SELECT FROM deliveries d"
                " WHERE d.receiver_id = r.id AND d.state = 'pending' AND d.due_at <= :now))"
            ),
            {"now": now},
        ).scalar_one()
    )


_SHOWN = """
SELECT d.id, d.event_id, d.type, d.endpoint_id, d.url, d.generation_id, d.state, d.due_at, d.created_at, d.attempts
  FROM deliveries d WHERE d.project_id = :project_id"""


def newest(
    tx: Transaction, project_id: UUID, *, before: UUID | None, limit: int, generation_id: UUID | None = None,
    endpoint_id: UUID | None = None, state: str | None = None,
) -> list[Any]:  # fmt: skip
    """Deliveries of a project, newest first."""
    given = {"generation_id": generation_id, "endpoint_id": endpoint_id, "state": state}
    where = "".join(f" AND d.{name} = :{name}" for name, value in given.items() if value is not None)
    where += " AND d.id < :before" if before else ""
    return list(
        tx.execute(
            text(f"{_SHOWN}{where} ORDER BY d.id DESC LIMIT :limit"),
            {"project_id": project_id, "limit": limit, "before": before, **given},
        )
    )


def get(tx: Transaction, project_id: UUID, delivery_id: UUID) -> Any | None:
    """One delivery of a project."""
    return tx.execute(text(f"{_SHOWN} AND d.id = :id"), {"project_id": project_id, "id": delivery_id}).first()


def attempts(tx: Transaction, delivery_id: UUID) -> list[Any]:
    """Every attempt of a delivery, oldest first."""
    return list(
        tx.execute(
            text(
                "SELECT number, at, duration_ms, status_code, error_class, response FROM attempts"
                " WHERE delivery_id = :id ORDER BY number"
            ),
            {"id": delivery_id},
        )
    )


def redeliver(tx: Transaction, project_id: UUID, delivery_id: UUID, now: datetime) -> None:
    """Make a delivery due now, which cancels its automatic next try. A send already running counts as it."""
    tx.execute(
        text(
            "UPDATE deliveries SET state = 'pending', due_at = :now WHERE id = :id AND project_id = :project_id"
            " AND (lease_until IS NULL OR lease_until <= :now OR state <> 'pending')"
        ),
        {"id": delivery_id, "project_id": project_id, "now": now},
    )


def give_up(tx: Transaction, *, endpoint_id: UUID | None = None, generation_id: UUID | None = None) -> int:
    """End what still waits for an endpoint, or for the webhook URL of a generation: its receiver is gone."""
    where = "endpoint_id = :endpoint_id" if endpoint_id else "generation_id = :generation_id AND endpoint_id IS NULL"
    ended = tx.execute(
        text(
            f"""
            WITH waiting AS MATERIALIZED (
                SELECT id FROM deliveries WHERE state = 'pending' AND {where} ORDER BY id FOR UPDATE)
            UPDATE deliveries d SET state = 'failed', due_at = NULL, lease_until = NULL FROM waiting WHERE d.id = waiting.id"""
        ),
        {"endpoint_id": endpoint_id, "generation_id": generation_id},
    )
    return ended.rowcount


def hold(tx: Transaction, endpoint_id: UUID) -> None:
    """Lock every delivery of an endpoint, in the order in which records lock them."""
    tx.execute(
        text("SELECT FROM deliveries WHERE endpoint_id = :endpoint_id ORDER BY id FOR UPDATE"),
        {"endpoint_id": endpoint_id},
    )


def unsent(
    tx: Transaction, *, project_id: UUID, receiver_id: int, since: datetime, after: tuple[datetime, UUID], limit: int
) -> list[Any]:
    """Events since then that failed at this receiver or never had a delivery to it, behind `after`, in the order of what happened."""
    return list(
        tx.execute(
            text(
                """
                SELECT e.id, e.type, e.generation_id, e.at, g.provider, g.tags, d.id AS delivery_id
                  FROM events e LEFT JOIN generations g ON g.id = e.generation_id
                  LEFT JOIN deliveries d ON d.event_id = e.id AND d.receiver_id = :receiver_id
                 WHERE e.project_id = :project_id AND e.at >= :since AND (e.at, e.id) > (:at, :id)
                   AND (d.state = 'failed' OR (d.id IS NULL AND e.type NOT IN ('generation.registered', 'ping')))
                 ORDER BY e.at, e.id LIMIT :limit"""
            ),
            {
                "project_id": project_id, "receiver_id": receiver_id, "since": since, "at": after[0], "id": after[1],
                "limit": limit,
            },
        )
    )  # fmt: skip


def send_again(tx: Transaction, again: Sequence[tuple[UUID, datetime]]) -> None:
    """Make failed deliveries due, each at its time."""
    if again:
        tx.execute(
            text("UPDATE deliveries SET state = 'pending', due_at = :due_at WHERE id = :id AND state = 'failed'"),
            [{"id": key, "due_at": due_at} for key, due_at in sorted(again)],
        )
