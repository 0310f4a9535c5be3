"""Deliveries: one event for one receiver, with every attempt. How they are claimed and recorded is told in `sending`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import text

from tracker.store.db import Transaction
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
    """Make a delivery due now, which cancels its automatic next try. A send already running counts as it.

    One that had ended begins its schedule anew.
    """
    tx.execute(
        text(
            "UPDATE deliveries SET state = 'pending', due_at = :now, lane = 0, lease_until = NULL,"
            " tries = CASE WHEN state = 'pending' THEN tries ELSE 0 END WHERE id = :id AND project_id = :project_id"
            " AND (lease_until IS NULL OR lease_until <= :now OR state <> 'pending')"
        ),
        {"id": delivery_id, "project_id": project_id, "now": now},
    )


def give_up(
    tx: Transaction, *, endpoint_id: UUID | None = None, generation_id: UUID | None = None, receiver_id: int | None = None
) -> int:  # fmt: skip
    """End what still waits for an endpoint, for a receiver, or for the webhook URL of a generation."""
    where = (
        "endpoint_id = :endpoint_id" if endpoint_id else "receiver_id = :receiver_id" if receiver_id is not None
        else "generation_id = :generation_id AND endpoint_id IS NULL"
    )  # fmt: skip
    ended = tx.execute(
        text(
            f"""
            WITH waiting AS MATERIALIZED (
                SELECT id FROM deliveries WHERE state = 'pending' AND {where} ORDER BY id FOR UPDATE)
            UPDATE deliveries d SET state = 'failed', due_at = NULL, lease_until = NULL FROM waiting WHERE d.id = waiting.id"""
        ),
        {"endpoint_id": endpoint_id, "generation_id": generation_id, "receiver_id": receiver_id},
    )
    return ended.rowcount


def hold(tx: Transaction, endpoint_id: UUID) -> None:
    """Lock every delivery of an endpoint, in the order in which records lock them."""
    tx.execute(
        text("SELECT FROM deliveries WHERE endpoint_id = :endpoint_id ORDER BY id FOR UPDATE"),
        {"endpoint_id": endpoint_id},
    )


def forget(tx: Transaction, before: UUID, limit: int) -> int:
    """Remove deliveries that ended, with their attempts, whose id is older than `before`; returns how many."""
    gone = tx.execute(
        text(
            """
            WITH old AS MATERIALIZED (
                SELECT id FROM deliveries WHERE id < :before AND state <> 'pending' ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
            DELETE FROM deliveries WHERE id = ANY (ARRAY(SELECT id FROM old))"""
        ),
        {"before": before, "limit": limit},
    )
    return gone.rowcount
