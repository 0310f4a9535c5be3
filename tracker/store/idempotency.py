"""Answers kept by Idempotency-Key, so that a repeated request is answered and not done again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from tracker.store.db import Transaction, text

KEPT = timedelta(hours=24)
"""How long an answer is replayed, as Stripe does at least."""
ABANDONED = timedelta(minutes=2)
"""A first request that has not answered by then has died with its process: its key is free again."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What is known of a key. `status` is None while the first request runs."""

    fingerprint: bytes
    status: int | None
    body: bytes | None


def begin(tx: Transaction, project_id: UUID, key: str, fingerprint: bytes, now: datetime) -> Stored | None:
    """Take the key; None when it was free, else what is stored under it."""
    where = {"project_id": project_id, "key": key}
    tx.execute(
        text(
            "DELETE FROM idempotency_keys WHERE project_id = :project_id AND key = :key"
            " AND (created_at < :old OR (status IS NULL AND created_at < :dead))"
        ),
        {**where, "old": now - KEPT, "dead": now - ABANDONED},
    )
    made = tx.execute(
        text(
            "INSERT INTO idempotency_keys (project_id, key, fingerprint, created_at)"
            " VALUES (:project_id, :key, :fingerprint, :now) ON CONFLICT DO NOTHING"
        ),
        {**where, "fingerprint": fingerprint, "now": now},
    )
    if made.rowcount:
        return None
    row = tx.execute(
        text("SELECT fingerprint, status, body FROM idempotency_keys WHERE project_id = :project_id AND key = :key"),
        where,
    ).first()
    # Freed between the two statements by a first request that failed: one more try takes it.
    return (
        begin(tx, project_id, key, fingerprint, now) if row is None else Stored(row.fingerprint, row.status, row.body)
    )


def finish(tx: Transaction, project_id: UUID, key: str, status: int, body: bytes) -> None:
    """Keep the answer, in the transaction that did the work."""
    tx.execute(
        text(
            "UPDATE idempotency_keys SET status = :status, body = :body WHERE project_id = :project_id AND key = :key"
        ),
        {"project_id": project_id, "key": key, "status": status, "body": body},
    )


def sweep(tx: Transaction, now: datetime) -> int:
    """Forget keys that are old enough."""
    return tx.execute(text("DELETE FROM idempotency_keys WHERE created_at < :old"), {"old": now - KEPT}).rowcount


def drop(tx: Transaction, project_id: UUID, key: str) -> None:
    """Free a key under which nothing was done."""
    tx.execute(
        text("DELETE FROM idempotency_keys WHERE project_id = :project_id AND key = :key AND status IS NULL"),
        {"project_id": project_id, "key": key},
    )
