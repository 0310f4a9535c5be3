"""Recovering an endpoint: what failed there, and what it missed while it was disabled, is sent again in the order of what happened.

The place is kept on the receiver and moves in the transaction of each slice, so that a crash loses nothing and repeats nothing.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tracker import bell
from tracker.core import ids
from tracker.core.events import EventType, endpoint_wants
from tracker.errors import ConflictError, NotFoundError
from tracker.store import db, deliveries, endpoints, events, outbox, replay
from tracker.store.db import Database, Transaction
from tracker.store.endpoints import Endpoint
from tracker.store.replay import Replay

SLICE = 500
"""Events that one transaction turns into deliveries."""
KEPT = timedelta(days=30)
"""How long deliveries that ended are kept, with their attempts. No recovery reaches further back: what is forgotten would look missed."""
_STEP = timedelta(microseconds=1)
"""Between the due times of two deliveries, to keep their order."""


class Recovery:
    """Begun by a caller, and carried on by whoever ticks should that caller's process die."""

    def __init__(self, database: Database, bell_: bell.Bell) -> None:
        self._database, self._bell = database, bell_

    def begin(self, project_id: UUID, endpoint_id: UUID, since: datetime) -> int:
        """Send again what failed since then or was missed while disabled; returns how many deliveries. ConflictError while disabled."""
        with self._database.transaction() as tx:
            endpoint, now = endpoints.get(tx, project_id, endpoint_id, lock=True), db.now(tx)
            if endpoint is None:
                raise NotFoundError("endpoint", ids.public("ep", endpoint_id))
            if not endpoint.enabled:
                raise ConflictError("the endpoint is disabled; enable it first", code="endpoint_disabled")
            after = ids.uuid7(max(since, now - KEPT), noise=0)
            replay.begin(tx, endpoint_id, after, ids.uuid7(now), now)
        count, more = 0, True
        while more:
            made, more = self._slice(endpoint_id, since)
            count += made
        self._bell.ring(bell.SEND, bell.WEBHOOK, because=f"{count} recovered")
        return count

    def go_on(self) -> int:
        """Carry on one recovery whose process died, by a slice; returns how many deliveries that made."""
        made, _ = self._slice(None, None)
        if made:
            self._bell.ring(bell.SEND, bell.WEBHOOK, because=f"{made} recovered")
        return made

    def _slice(self, endpoint_id: UUID | None, since: datetime | None) -> tuple[int, bool]:
        with self._database.transaction() as tx:
            now = db.now(tx)
            going = replay.under_way(tx, endpoint_id)
            if going is None:
                return 0, False
            endpoint = endpoints.get(tx, going.project_id, going.endpoint_id)
            if endpoint is None or not endpoint.enabled:
                replay.end(tx, going)
                return 0, False
            return self._replayed(tx, endpoint, going, max(since or now - KEPT, now - KEPT))

    @staticmethod
    def _replayed(tx: Transaction, endpoint: Endpoint, going: Replay, since: datetime) -> tuple[int, bool]:
        found = replay.unsent(tx, going, since, SLICE)
        wanted = [row for row in found if row.delivery_id is not None or _wants(endpoint, row)]
        wanted.sort(key=lambda row: (row.at, row.id))
        planned = [(row, going.due + _STEP * place) for place, row in enumerate(wanted, 1)]
        replay.send_again(tx, [(row.delivery_id, at) for row, at in planned if row.delivery_id is not None])
        deliveries.insert(tx, [_missed(endpoint, row, at) for row, at in planned if row.delivery_id is None])
        if len(found) < SLICE:
            replay.end(tx, going)
        else:
            replay.advance(tx, going, found[-1].id, going.due + _STEP * len(wanted))
        return len(wanted), len(found) == SLICE


def _missed(endpoint: Endpoint, row: Any, at: datetime) -> dict[str, Any]:
    event = events.Event(row.id, endpoint.project_id, EventType(row.type), row.at, b"", generation_id=row.generation_id)
    return outbox.delivery(
        event, receiver_id=endpoint.receiver_id, endpoint_id=endpoint.id, url=endpoint.url, now=at, lane=replay.LANE
    )


def _wants(endpoint: Endpoint, row: Any) -> bool:
    type_ = EventType(row.type)
    if not endpoint_wants(type_, events=endpoint.events, tags=(), providers=(), generation=None):
        return False
    if row.generation_id is None:
        return True
    tagged = not endpoint.tags or bool(set(endpoint.tags) & set(row.tags))
    return tagged and (not endpoint.providers or row.provider in endpoint.providers)
