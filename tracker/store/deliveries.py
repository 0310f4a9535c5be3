"""Deliveries: one event for one receiver, with every attempt. How they are claimed and recorded is told in `sending`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from tracker.store.db import Transaction, text
from tracker.store.rows import records

_TYPES = {
    "id": "uuid", "project_id": "uuid", "event_id": "uuid", "generation_id": "uuid", "receiver_id": "int",
    "endpoint_id": "uuid", "type": "text", "url": "text", "lane": "int", "due_at": "timestamptz", "created_at": "timestamptz",
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


def any_due(tx: Transaction, now: datetime) -> bool:
    """Whether a delivery waits to be sent."""
    return bool(
        tx.execute(
            text(
                "SELECT EXISTS (SELECT FROM receivers r CROSS JOIN (VALUES (0), (1), (2), (3)) AS l (lane) CROSS JOIN LATERAL ("
                "SELECT FROM deliveries d WHERE d.receiver_id = r.id AND d.lane = l.lane AND d.state = 'pending' AND d.due_at <= :now"
                " LIMIT 1) d)"
            ),
            {"now": now},
        ).scalar_one()
    )


# What waits goes where its endpoint is by then; what is being sent has no next time.
_SHOWN = """
SELECT d.id, d.event_id, d.type, d.endpoint_id, CASE WHEN d.state = 'pending' THEN coalesce(n.url, d.url) ELSE d.url END AS url,
       d.generation_id, d.state, CASE WHEN d.lease_until > :now THEN NULL ELSE d.due_at END AS due_at, d.created_at, d.attempts
  FROM deliveries d LEFT JOIN endpoints n ON n.id = d.endpoint_id WHERE d.project_id = :project_id"""


def newest(
    tx: Transaction, project_id: UUID, *, now: datetime, before: UUID | None, limit: int, generation_id: UUID | None = None,
    endpoint_id: UUID | None = None, state: str | None = None,
) -> list[Any]:  # fmt: skip
    """Deliveries of a project, newest first."""
    given = {"generation_id": generation_id, "endpoint_id": endpoint_id, "state": state}
    where = "".join(f" AND d.{name} = :{name}" for name, value in given.items() if value is not None)
    where += " AND d.id < :before" if before else ""
    return list(
        tx.execute(
            text(f"{_SHOWN}{where} ORDER BY d.id DESC LIMIT :limit"),
            {"project_id": project_id, "now": now, "limit": limit, "before": before, **given},
        )
    )


def get(tx: Transaction, project_id: UUID, delivery_id: UUID, now: datetime) -> Any | None:
    """One delivery of a project."""
    where = {"project_id": project_id, "id": delivery_id, "now": now}
    return tx.execute(text(f"{_SHOWN} AND d.id = :id"), where).first()


def attempts(tx: Transaction, delivery_id: UUID) -> list[Any]:
    """Every attempt of a delivery, oldest first."""
    return list(
        tx.execute(
            text(
                "SELECT number, at, duration_ms, status_code, error_class, response, worker FROM attempts"
                " WHERE delivery_id = :id ORDER BY number"
            ),
            {"id": delivery_id},
        )
    )


def redeliver(tx: Transaction, project_id: UUID, delivery_id: UUID, now: datetime) -> None:
    """Make a delivery due now, which cancels its automatic next try. A send already running counts as it.

    One that had ended begins its schedule anew.
    """
    tx.execute(
        text(
            "UPDATE deliveries SET state = 'pending', due_at = :now, lane = 0, lease_until = NULL, ended_at = NULL,"
            " tries = CASE WHEN state = 'pending' THEN tries ELSE 0 END WHERE id = :id AND project_id = :project_id"
            " AND (lease_until IS NULL OR lease_until <= :now OR state <> 'pending')"
        ),
        {"id": delivery_id, "project_id": project_id, "now": now},
    )


_WAITS = "d.state = 'pending' AND (d.lease_until IS NULL OR d.lease_until <= :now)"
_GIVEN_UP = """UPDATE deliveries SET state = 'failed', due_at = NULL, lease_until = NULL, ended_at = :now
             WHERE id = ANY (ARRAY(SELECT id FROM waiting))"""


def give_up_generation(tx: Transaction, generation_id: UUID, now: datetime) -> None:
    """End what still waits for the webhook URL of a generation, save what is being sent."""
    tx.execute(
        text(
            f"""
            WITH waiting AS MATERIALIZED (
                SELECT id FROM deliveries d WHERE generation_id = :generation_id AND endpoint_id IS NULL AND {_WAITS}
                 ORDER BY id FOR UPDATE)
            {_GIVEN_UP}"""
        ),
        {"generation_id": generation_id, "now": now},
    )


def give_up_waiting(tx: Transaction, now: datetime, limit: int) -> int:
    """End so many of the deliveries that wait for disabled endpoints and for hosts that were given up; returns how many.

    What is being sent is left to its record, for it may still be delivered; what is asked for by hand is sent once. Who enables an
    endpoint or begins a recovery meanwhile waits for the end of this: the recovery then sees what has failed.
    """
    gone = tx.execute(
        text(
            f"""
            WITH off AS MATERIALIZED (
                SELECT r.id, r.given_up_at FROM receivers r LEFT JOIN endpoints n ON n.id = r.endpoint_id
                 WHERE n.enabled IS FALSE OR r.given_up_at IS NOT NULL FOR SHARE OF r SKIP LOCKED),
            waiting AS MATERIALIZED (
                SELECT w.id FROM off CROSS JOIN LATERAL (
                       SELECT d.id FROM deliveries d
                        WHERE d.receiver_id = off.id AND d.lane > 0 AND {_WAITS}
                          AND (off.given_up_at IS NULL OR d.created_at <= off.given_up_at)
                        LIMIT :limit FOR UPDATE SKIP LOCKED) w LIMIT :limit)
            {_GIVEN_UP}"""
        ),
        {"now": now, "limit": limit},
    )
    return gone.rowcount


def forgive(tx: Transaction) -> None:
    """Give hosts that were given up another chance once nothing is left from before."""
    tx.execute(
        text(
            """
            UPDATE receivers r SET given_up_at = NULL WHERE given_up_at IS NOT NULL AND NOT EXISTS (
                   SELECT FROM deliveries d WHERE d.receiver_id = r.id AND d.state = 'pending' AND d.lane > 0
                      AND d.created_at <= r.given_up_at)"""
        )
    )


def hold(tx: Transaction, endpoint_id: UUID) -> None:
    """Lock every delivery of an endpoint, in the order in which records lock them."""
    tx.execute(
        text("SELECT FROM deliveries WHERE endpoint_id = :endpoint_id ORDER BY id FOR UPDATE"),
        {"endpoint_id": endpoint_id},
    )


def clear(tx: Transaction, project_id: UUID, endpoint_id: UUID, after: UUID, limit: int) -> UUID | None:
    """Remove those of an endpoint among the next `limit` deliveries of its project; returns where to go on, None at the end.

    Looks at so many rows at most, however few of them are the endpoint's: no statement takes long, and none needs an index of its own.
    """
    found: UUID | None = tx.execute(
        text(
            """
            WITH next AS MATERIALIZED (
                SELECT id, endpoint_id FROM deliveries WHERE project_id = :project_id AND id > :after ORDER BY id LIMIT :limit),
            held AS MATERIALIZED (
                SELECT id FROM deliveries WHERE id = ANY (ARRAY(SELECT id FROM next WHERE endpoint_id = :endpoint_id))
                 ORDER BY id FOR UPDATE),
            gone AS (DELETE FROM deliveries WHERE id = ANY (ARRAY(SELECT id FROM held)))
            SELECT id FROM next ORDER BY id OFFSET :limit - 1"""
        ),
        {"project_id": project_id, "endpoint_id": endpoint_id, "after": after, "limit": limit},
    ).scalar_one_or_none()
    return found


def forget(tx: Transaction, *, ended: datetime, made: UUID, limit: int) -> int:
    """Remove deliveries that ended before `ended`, with their attempts; returns how many. Ids of that time are below `made`."""
    gone = tx.execute(
        text(
            """
            WITH old AS MATERIALIZED (
                SELECT id FROM deliveries WHERE id < :made AND state <> 'pending' AND coalesce(ended_at, created_at) < :ended
                 ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
            DELETE FROM deliveries WHERE id = ANY (ARRAY(SELECT id FROM old))"""
        ),
        {"ended": ended, "made": made, "limit": limit},
    )
    return gone.rowcount
