"""Looking at deliveries, and sending one again."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tracker import bell
from tracker.core import ids
from tracker.errors import NotFoundError
from tracker.store import db, deliveries
from tracker.store.db import Database


class Deliveries:
    """Rows have id, event_id, type, endpoint_id, url, generation_id, state, due_at, created_at."""

    def __init__(self, database: Database, bell_: bell.Bell) -> None:
        self._database, self._bell = database, bell_

    def page(
        self, project_id: UUID, before: UUID | None, limit: int, *, generation_id: UUID | None = None,
        endpoint_id: UUID | None = None, state: str | None = None,
    ) -> tuple[list[Any], UUID | None]:  # fmt: skip
        """Newest first, and the id before which the next page begins."""
        with self._database.transaction() as tx:
            found = deliveries.newest(
                tx,
                project_id,
                now=db.now(tx),
                before=before,
                limit=limit + 1,
                generation_id=generation_id,
                endpoint_id=endpoint_id,
                state=state,
            )
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    def get(self, project_id: UUID, delivery_id: UUID) -> tuple[Any, list[Any]]:
        """One delivery with its attempts, oldest first."""
        with self._database.transaction() as tx:
            row = deliveries.get(tx, project_id, delivery_id, db.now(tx))
            if row is None:
                raise NotFoundError("delivery", ids.public("dlv", delivery_id))
            return row, deliveries.attempts(tx, delivery_id)

    def redeliver(self, project_id: UUID, delivery_id: UUID) -> tuple[Any, list[Any]]:
        """Send it again now, with the same webhook-id; this cancels the automatic next try."""
        self.get(project_id, delivery_id)
        with self._database.transaction() as tx:
            deliveries.redeliver(tx, project_id, delivery_id, db.now(tx))
        self._bell.ring(bell.SEND, bell.WEBHOOK, because="1 redelivery")
        return self.get(project_id, delivery_id)
