"""Recovering an endpoint: what failed there, and what it missed while it was disabled, is sent again in the order of what happened.

The place is kept on the receiver and moves in the transaction of each slice, so that a crash loses nothing and repeats nothing.
It follows the events' ids, and what was being written when it began may appear behind it: a recovery ends once that is all there,
with a look at it.
"""

from __future__ import annotations

from dataclasses import dataclass
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

SLICE = 1000
"""Events that one transaction turns into deliveries, in some 70 ms."""
AT_ONCE = 5
"""Recoveries that one tick carries on: it has other things to do within its second."""
_STEP = timedelta(microseconds=1)
"""Between the due times of two deliveries, to keep their order."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """How many deliveries a recovery has made so far, and whether it has come to its end."""

    count: int
    complete: bool


class Recovery:
    """Begun by a caller, and carried on by whoever ticks.

    `kept`: how long deliveries are kept once they ended. No recovery reaches further back: what is forgotten would look missed.
    """

    def __init__(self, database: Database, bell_: bell.Bell, *, kept: timedelta) -> None:
        self._database, self._bell, self._kept = database, bell_, kept

    def begin(self, project_id: UUID, endpoint_id: UUID, since: datetime) -> Recovered:
        """Send again what failed since then or was missed while disabled: a first slice at once. ConflictError while disabled."""
        with self._database.transaction() as tx:
            endpoint, now = endpoints.get(tx, project_id, endpoint_id, lock=True), db.now(tx)
            if endpoint is None:
                raise NotFoundError("endpoint", ids.public("ep", endpoint_id))
            if not endpoint.enabled:
                raise ConflictError("the endpoint is disabled; enable it first", code="endpoint_disabled")
            after = ids.uuid7(max(since, now - self._kept), noise=0)
            replay.begin(tx, endpoint_id, after, ids.uuid7(now), now)
        return self._slice(project_id, endpoint_id)

    def go_on(self) -> int:
        """Carry on what was begun, by a slice of each of some; returns how many deliveries that made."""
        with self._database.transaction() as tx:
            going = replay.some_under_way(tx, AT_ONCE)
        return sum(self._slice(*key).count for key in going)

    def _slice(self, project_id: UUID, endpoint_id: UUID) -> Recovered:
        with self._database.transaction() as tx:
            endpoint = endpoints.get(tx, project_id, endpoint_id)
            going = replay.under_way(tx, endpoint_id)
            if endpoint is None or going is None:
                return Recovered(0, complete=True)
            done = self._replayed(tx, endpoint, going, db.now(tx))
        if done.count:
            self._bell.ring(bell.SEND, bell.WEBHOOK, because=f"{done.count} recovered")
        return done

    def _replayed(self, tx: Transaction, endpoint: Endpoint, going: Replay, now: datetime) -> Recovered:
        found, place = replay.unsent(tx, going, now - self._kept, SLICE, LOOKED_AT)
        seen = {row.id: row for row in found}
        if complete := place is None and going.settled:
            seen |= {row.id: row for row in replay.late(tx, going)}
        wanted = [row for row in seen.values() if row.delivery_id is not None or _wants(endpoint, row)]
        wanted.sort(key=lambda row: (row.at, row.id))
        planned = [(row, going.due + _STEP * nth) for nth, row in enumerate(wanted, 1)]
        replay.send_again(tx, [(row.delivery_id, at) for row, at in planned if row.delivery_id is not None])
        deliveries.insert(tx, [_missed(endpoint, row, at) for row, at in planned if row.delivery_id is None])
        if complete:
            replay.end(tx, endpoint.id)
        else:
            place = place or (found[-1].id if found else going.after)
            replay.advance(tx, going, place, going.due + _STEP * len(wanted))
        return Recovered(len(wanted), complete)


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


LOOKED_AT = 50_000
"""Events that a slice looks at, however few of them it has to send: no look takes long."""
