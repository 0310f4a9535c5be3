"""What a registration reads, and what it writes: one statement each, for a round trip costs more than what most statements do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from tracker.core.generation import Generation
from tracker.store import credentials, db, events, schedule
from tracker.store.credentials import Credential
from tracker.store.db import Transaction, text
from tracker.store.events import Event
from tracker.store.rows import as_records, records
from tracker.store.schedule import Scheduled


@dataclass(frozen=True, slots=True)
class Found:
    """A project's accounts, what it keeps where a registration does not say, and the time at which both were found."""

    accounts: list[Credential]
    download: tuple[str, ...] | None
    at: datetime


@dataclass(frozen=True, slots=True)
class New:
    """A generation to be stored, with its place on the schedule and its first event."""

    generation: Generation
    scheduled: Scheduled
    event: Event


def look_up(tx: Transaction, project_id: UUID) -> Found:
    """What a registration in this project must know; one that is not there has no accounts."""
    rows = tx.execute(
        text(
            "SELECT c.*, p.download, clock_timestamp() AS now FROM projects p LEFT JOIN credentials c ON c.project_id = p.id"
            f" WHERE p.id = :id ORDER BY {credentials.ORDER}"
        ),
        {"id": project_id},
    ).all()
    if not rows:
        return Found([], None, db.now(tx))
    accounts = [credentials.from_row(row) for row in rows if row.id is not None]
    download = None if rows[0].download is None else tuple(rows[0].download)
    return Found(accounts, download, rows[0].now + db.ahead(tx))


_TYPES = {
    "id": "uuid", "project_id": "uuid", "provider": "text", "credential_id": "int", "task_id": "text", "kind": "text",
    "model": "text", "metadata": "jsonb", "tags": "text[]", "webhook_url": "text", "webhook_events": "text[]",
    "webhook_receiver_id": "int", "download": "text[]", "poll_price": "real", "poll_longest": "real",
    "registered_at": "timestamptz", "submitted_at": "timestamptz", "timeout": "float8", "timeout_at": "timestamptz",
    "give_up_at": "timestamptz",
}  # fmt: skip
_VALUES = ", ".join("make_interval(secs => r.timeout)" if name == "timeout" else f"r.{name}" for name in _TYPES)

# The accounts are held first: one that is being deleted or changed is waited for, and what it then serves and wishes is what counts.
# In one order everywhere, so that two who register the same tasks never wait for each other crosswise.
_STORE = f"""
WITH held AS MATERIALIZED (
    SELECT id, providers, poll_price, poll_longest FROM credentials WHERE id = ANY (:accounts) ORDER BY id FOR KEY SHARE
), made AS (
    INSERT INTO generations ({", ".join(_TYPES)}, changed_at)
    SELECT {_VALUES}, r.registered_at FROM {records(_TYPES)}
     WHERE EXISTS (SELECT FROM held WHERE held.id = r.credential_id AND r.provider = ANY (held.providers))
     ORDER BY r.credential_id, r.provider COLLATE "C", r.task_id COLLATE "C"
    ON CONFLICT ON CONSTRAINT generations_task_unique DO NOTHING RETURNING id
), scheduled AS (
    INSERT INTO polls ({schedule.COLUMNS})
    SELECT {schedule.ENTRY} FROM {records(schedule.TYPES, "scheduled")}
      JOIN made ON made.id = r.generation_id JOIN held c ON c.id = r.credential_id
), noted AS (
    INSERT INTO events ({events.COLUMNS})
    SELECT {events.VALUES} FROM {records(events.TYPES, "events")} JOIN made ON made.id = r.generation_id
)
SELECT id FROM made"""


def store(tx: Transaction, new: Sequence[New]) -> set[UUID]:
    """Store new generations, all in one statement; returns the ids of those that were stored.

    Not stored is a task that is registered already, which is left as it is, and one whose account no longer serves its provider.
    """
    generations = [one.generation for one in new]
    rows = {
        "rows": as_records(generations, _TYPES, timeout=[g.timeout.total_seconds() for g in generations]),
        "scheduled": as_records([one.scheduled for one in new], schedule.TYPES),
        "events": events.as_rows([one.event for one in new]),
        "accounts": sorted({g.credential_id for g in generations}),
    }
    return set(tx.execute(text(_STORE), rows).scalars())
