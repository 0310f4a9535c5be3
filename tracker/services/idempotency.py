"""Idempotency keys: the first request does the work, the same one again gets the same answer."""

from __future__ import annotations

from uuid import UUID

from tracker.store import db, idempotency
from tracker.store.db import Database
from tracker.store.idempotency import Stored


class Idempotency:
    """Answers are kept for 24 hours."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def begin(self, project_id: UUID, key: str, fingerprint: bytes) -> Stored | None:
        """Take the key; None when it was free, else what is stored under it."""
        with self._database.transaction() as tx:
            return idempotency.begin(tx, project_id, key, fingerprint, db.now(tx))

    def finish(self, project_id: UUID, key: str, status: int, body: bytes) -> None:
        """Keep the answer for the next time."""
        with self._database.transaction() as tx:
            idempotency.finish(tx, project_id, key, status, body)

    def abandon(self, project_id: UUID, key: str) -> None:
        """Free the key again: nothing was done under it."""
        with self._database.transaction() as tx:
            idempotency.drop(tx, project_id, key)
