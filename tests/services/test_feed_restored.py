"""The stream of events after a restore into another server, whose transactions are numbered from the beginning again."""

from __future__ import annotations

from typing import Any

import pytest

from tracker.services import feed
from tracker.store import events as stored

from .conftest import Place
from .test_delivery_flow import endpoint, events

AHEAD = 5_000_000
"""By how much the server that was backed up had numbered more transactions."""


@pytest.fixture
def cursor(place: Place, receiver: Any) -> str:
    """One of a reader that has read all but the last event, at a server whose backup was then restored here."""
    endpoint(place, receiver)
    events(place, 4)
    place.change("UPDATE events SET xid = xid + :ahead", ahead=AHEAD)
    place.change("UPDATE receivers SET replay_snapshot = '5000000:5000000:'")
    rows = place.rows("SELECT xid, id FROM events WHERE type <> 'generation.registered' ORDER BY xid, id")
    known = feed._cursor((rows[-2]["xid"], rows[-2]["id"]))
    assert place.services.feed.page(place.project, None, 100) == [], (
        "hidden: no transaction here is numbered so high yet"
    )
    with place.services.database.transaction() as tx:
        stored.settle_restored(tx)
    return known


def ids(entries: list[Any]) -> list[Any]:
    return [entry.id for entry in entries]


def test_the_history_is_there_in_order_and_what_comes_follows(place: Place, cursor: str) -> None:
    before = place.services.feed.page(place.project, None, 100)
    assert len(before) == 4
    assert [e.at for e in before] == sorted(e.at for e in before)
    events(place, 1, "after")
    assert ids(place.services.feed.page(place.project, None, 100))[:4] == ids(before)
    assert len(place.services.feed.page(place.project, before[-1].cursor, 100)) == 1
    assert place.scalar("SELECT count(*) FROM receivers WHERE replay_snapshot IS NOT NULL") == 0


def test_a_cursor_from_before_loses_nothing(place: Place, cursor: str) -> None:
    last = place.services.feed.page(place.project, None, 100)[-1]
    events(place, 1, "after")
    newest = place.services.feed.page(place.project, None, 100)[-1]
    seen = place.services.feed.page(place.project, cursor, 100)
    assert {last.id, newest.id} <= set(ids(seen)), "what it had not read, and what came since"
    assert place.services.feed.page(place.project, seen[-1].cursor, 100) == [], "and then it goes on like every other"
    place.services.database.ahead += 2 * stored.SETTLED
    events(place, 1, "later")
    assert len(place.services.feed.page(place.project, seen[-1].cursor, 100)) == 1


def test_a_restore_into_a_server_that_is_further_on_changes_nothing(place: Place, receiver: Any) -> None:
    endpoint(place, receiver)
    events(place, 2)
    before = place.rows("SELECT id, xid FROM events ORDER BY id")
    with place.services.database.transaction() as tx:
        stored.settle_restored(tx)
        assert stored.from_before_restore(tx, (before[-1]["xid"], before[-1]["id"])) is None
    assert place.rows("SELECT id, xid FROM events ORDER BY id") == before
