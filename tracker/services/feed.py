"""The stream of events, for those who pull or follow it. A cursor is opaque outside: a place in the order of commits."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tracker.core import ids
from tracker.errors import FieldProblem, InvalidError
from tracker.store import events
from tracker.store.db import Database
from tracker.store.events import START, Cursor


@dataclass(frozen=True, slots=True)
class Entry:
    """One event in the stream; `cursor` resumes behind it."""

    cursor: str
    id: UUID
    type: str
    at: datetime
    body: bytes


class Feed:
    """Reads events; writes nothing."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def page(self, project_id: UUID, after: str | None, limit: int) -> list[Entry]:
        """Events after a cursor (or an event's public id), oldest first; from the beginning when it is None."""
        with self._database.transaction() as tx:
            place = START if after is None else self._place(tx, project_id, after)
            found = events.after(tx, project_id, place, limit)
            if not found and (again := events.from_before_restore(tx, place)):
                found = events.after(tx, project_id, again, limit)
            return [_entry(row) for row in found]

    def newest(self, project_id: UUID) -> str:
        """The cursor from which only what happens from now on is read."""
        with self._database.transaction() as tx:
            return _cursor(events.newest_cursor(tx, project_id))

    @staticmethod
    def _place(tx: Any, project_id: UUID, after: str) -> Cursor:
        event_id = ids.parse("evt", after)
        place = events.of_event(tx, project_id, event_id) if event_id else _parsed(after)
        if place is None:
            raise InvalidError(
                FieldProblem("after", "it is no cursor of this feed; leave it out to begin at the start")
            )
        return place


def _entry(row: Any) -> Entry:
    return Entry(_cursor((row.xid, row.id)), row.id, row.type, row.at, bytes(row.body))


def _cursor(place: Cursor) -> str:
    return base64.urlsafe_b64encode(place[0].to_bytes(8, "big") + place[1].bytes).decode().rstrip("=")


def _parsed(cursor: str) -> Cursor | None:
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if len(raw) != 24:  # noqa: PLR2004 - eight bytes of transaction id, sixteen of event id
        return None
    xid = int.from_bytes(raw[:8], "big")
    return (xid, UUID(bytes=raw[8:])) if xid < 2**63 else None
