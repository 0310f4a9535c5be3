"""Events: transitions, outbox and stream in one table; and the deliveries that each event causes, made in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from tracker.core import ids
from tracker.core.events import EventType
from tracker.store.db import Transaction, text
from tracker.store.rows import as_records, records


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `sequence` counts the events of a generation from 1; None for what concerns none."""

    id: UUID
    project_id: UUID
    type: EventType
    at: datetime
    body: bytes
    generation_id: UUID | None = None
    sequence: int | None = None
    from_state: str | None = None
    to_state: str | None = None
    provider_status: str | None = None
    detail: dict[str, Any] | None = None


TYPES = {
    "id": "uuid", "project_id": "uuid", "generation_id": "uuid", "sequence": "int", "type": "text", "from_state": "text",
    "to_state": "text", "provider_status": "text", "at": "timestamptz", "detail": "jsonb", "body": "text",
}  # fmt: skip
COLUMNS = ", ".join(TYPES)
VALUES = ", ".join("convert_to(r.body, 'UTF8')" if name == "body" else f"r.{name}" for name in TYPES)
INSERT = f"INSERT INTO events ({COLUMNS}) SELECT {VALUES} FROM {records(TYPES)}"


def as_rows(events: Sequence[Event]) -> str:
    """What INSERT takes as `rows`."""
    return as_records(events, TYPES, body=[e.body.decode() for e in events])


def insert(tx: Transaction, events: Sequence[Event]) -> None:
    """Store events in the transaction of their cause."""
    if events:
        tx.execute(text(INSERT), {"rows": as_rows(events)})


def add_detail(tx: Transaction, generation_id: UUID, detail: dict[str, Any]) -> None:
    """Add to the detail of a generation's latest transition: what came too late to count, but must stay findable."""
    tx.execute(
        text(
            """
            UPDATE events SET detail = coalesce(detail, '{}') || CAST(:detail AS jsonb)
             WHERE generation_id = :id AND sequence = (
                   SELECT max(sequence) FROM events WHERE generation_id = :id AND to_state IS NOT NULL)"""
        ),
        {"id": generation_id, "detail": orjson.dumps(detail).decode()},
    )


def transitions(tx: Transaction, generation_id: UUID) -> list[Any]:
    """The state transitions of a generation, oldest first."""
    return list(
        tx.execute(
            text(
                "SELECT sequence, from_state, to_state, provider_status, at, detail FROM events"
                " WHERE generation_id = :id AND to_state IS NOT NULL ORDER BY sequence"
            ),
            {"id": generation_id},
        )
    )


Cursor = tuple[int, UUID]
"""A place in the stream: (transaction id, event id)."""
START: Cursor = (0, UUID(int=0))


def after(tx: Transaction, project_id: UUID, cursor: Cursor, limit: int) -> list[Any]:
    """Events of a project after `cursor`, in the order of the stream.

    Only below the oldest running transaction: what commits later than it was numbered can then never be skipped.
    """
    return list(
        tx.execute(
            text(
                """
                SELECT id, xid, type, at, body, generation_id, sequence FROM events
                 WHERE project_id = :project_id AND (xid, id) > (:xid, :id) AND type <> 'generation.registered'
                   AND xid < (pg_snapshot_xmin(pg_current_snapshot())::text)::bigint
                 ORDER BY xid, id LIMIT :limit"""
            ),
            {"project_id": project_id, "xid": cursor[0], "id": cursor[1], "limit": limit},
        )
    )


RESTORED = 3
"""The transaction id of events that a restore brought from another server: below every id that a server gives."""
SETTLED = timedelta(minutes=10)
"""No transaction is open for so long: of events this far apart in time the later one was committed later."""


def settle_restored(tx: Transaction) -> None:
    """After a restore: events of transactions that this server has not come to yet would be hidden until it has."""
    ahead = tx.execute(
        text("SELECT coalesce(max(xid), 0) >= (pg_snapshot_xmin(pg_current_snapshot())::text)::bigint FROM events")
    ).scalar_one()
    if ahead:
        tx.execute(text("UPDATE events SET xid = :restored"), {"restored": RESTORED})
        tx.execute(text("UPDATE receivers SET replay_snapshot = NULL"))


def from_before_restore(tx: Transaction, cursor: Cursor) -> Cursor | None:
    """Where to go on for a cursor that another server gave, before a restore; None for one of this server's own.

    A little before its place: restored events are in the order of their ids, not of their commits. Some come twice, none is left out.
    """
    next_xid = tx.execute(text("SELECT (pg_snapshot_xmax(pg_current_snapshot())::text)::bigint")).scalar_one()
    if cursor[0] < next_xid:
        return None
    at = datetime.fromtimestamp((cursor[1].int >> 80) / 1000, UTC)
    return RESTORED, ids.uuid7(max(at - SETTLED, datetime.fromtimestamp(0, UTC)), noise=0)


def newest_cursor(tx: Transaction, project_id: UUID) -> Cursor:
    """The place from which only what happens from now on is read."""
    row = tx.execute(
        text(
            "SELECT xid, id FROM events WHERE project_id = :project_id"
            " AND xid < (pg_snapshot_xmin(pg_current_snapshot())::text)::bigint ORDER BY xid DESC, id DESC LIMIT 1"
        ),
        {"project_id": project_id},
    ).first()
    return START if row is None else (row.xid, row.id)


def of_event(tx: Transaction, project_id: UUID, event_id: UUID) -> Cursor | None:
    """The place of one event in the stream."""
    row = tx.execute(
        text("SELECT xid, id FROM events WHERE project_id = :project_id AND id = :id"),
        {"project_id": project_id, "id": event_id},
    ).first()
    return None if row is None else (row.xid, row.id)
