"""Receivers that are given up: when, in one piece whatever dies, without holding up the sender, and never one that still answers."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from tracker import wiring
from tracker.core import ids
from tracker.services.forms import EndpointChange

from .conftest import Place, until
from .test_delivery_flow import attempts, deliveries, endpoint, events, lived, upkept

DAY = timedelta(days=1)


def enabled(place: Place, it: UUID) -> bool:
    return place.services.endpoints.get(place.project, it).enabled


def failing_since(place: Place, it: UUID) -> Any:
    return place.scalar("SELECT failing_since FROM receivers WHERE endpoint_id = :id", id=it)


def test_a_death_between_record_and_disabling_costs_no_other_five_days(place, receiver, monkeypatch):
    it = endpoint(place, receiver, schedule=[0])
    receiver.status = 500
    events(place, 1, "first")
    place.send()
    place.services.database.ahead += 5 * DAY
    aftermath = place.services.delivery._aftermath
    monkeypatch.setattr(aftermath, "_worn_out", lambda _: None)  # it dies before the second transaction
    events(place, 1, "second")
    place.send()
    monkeypatch.undo()
    assert enabled(place, it)
    assert failing_since(place, it) is not None, "what is known outlives the death"
    events(place, 1, "third")
    place.send()
    assert not enabled(place, it)
    assert failing_since(place, it) is None
    assert place.scalar("SELECT count(*) FROM events WHERE type = 'endpoint.disabled'") == 1


def test_disabling_leaves_a_backlog_to_upkeep_in_slices(place, receiver, monkeypatch):
    monkeypatch.setattr("tracker.services.upkeep.GIVEN_UP_AT_ONCE", 3)
    it = endpoint(place, receiver)
    receiver.status = 410
    events(place, 10)
    place.services.delivery.send_due()
    assert not enabled(place, it)
    asked = len(receiver.got)
    assert asked <= 4, "what was in flight"
    left = len(deliveries(place, state="pending"))
    assert left >= 6, "the sender does not end the backlog"
    assert place.send() == 0, "and sends none of it"

    def by_a_slice() -> bool:
        place.services.upkeep.tick()
        now = len(deliveries(place, state="pending"))
        # A tick passes over a receiver that the sender, which looks around for a while yet, holds at this moment.
        assert now in (left, max(0, left - 3))
        return now < left

    while left > 0:
        until(by_a_slice, "the next slice")
        left -= 3
    assert {d.state for d in deliveries(place, endpoint_id=it)} == {"failed"}
    assert len(receiver.got) == asked


def test_a_success_claimed_while_all_was_well_ends_a_failure_beside_it(place, receiver):
    it = endpoint(place, receiver, schedule=[0])
    gate = receiver.hang("/")
    events(place, 2, "pair")
    place.services.delivery.send_due(patience=0.1)
    until(lambda: len(receiver.got) == 2, "both are in flight")
    (place_of,) = place.rows("SELECT id FROM receivers WHERE endpoint_id = :id", id=it)
    place.change("UPDATE receivers SET failing_since = :at WHERE id = :id", at=place.now(), id=place_of["id"])
    gate.set()  # another worker recorded a failure meanwhile; these two are successes
    place.send()
    assert {d.state for d in deliveries(place)} == {"delivered"}
    assert failing_since(place, it) is None
    place.services.database.ahead += 6 * DAY
    receiver.status = 500
    events(place, 1, "later")
    place.send()
    assert enabled(place, it)


def test_a_failure_and_a_success_of_one_slice_count_in_the_order_in_which_they_landed(place, receiver):
    from tracker.couriers.webhook import Attempt
    from tracker.services.aftermath import Sent
    from tracker.store import sending

    it = endpoint(place, receiver)
    aftermath = place.services.delivery._aftermath
    for n, (first, last) in enumerate(((500, 204), (204, 500))):
        place.change("UPDATE receivers SET failing_since = NULL, failing = 0")
        events(place, 2, f"slice{n}-")
        with place.services.database.transaction() as tx:
            claimed = sending.claim(tx, limit=10, late=0).outgoing
        answers = [Attempt(1, status, "status" if status == 500 else None, "", None) for status in (first, last)]
        aftermath.record([Sent(o, answer) for o, answer in zip(reversed(claimed), answers, strict=True)])
        assert (failing_since(place, it) is None) is (last == 204)


def test_what_is_in_flight_when_the_endpoint_is_disabled_is_recorded(place, receiver):
    it = endpoint(place, receiver)
    since = place.now()
    gate = receiver.hang("/")
    events(place, 1)
    place.services.delivery.send_due(patience=0.1)
    until(lambda: receiver.got, "it is in flight")
    place.services.endpoints.edit(place.project, it, EndpointChange(enabled=False))
    place.services.upkeep.tick()
    gate.set()
    place.send()
    (delivery,) = deliveries(place)
    assert (delivery.state, delivery.attempts) == ("delivered", 1)
    place.services.endpoints.edit(place.project, it, EndpointChange(enabled=True))
    place.services.endpoints.recover(place.project, it, since)
    place.send()
    assert len(receiver.got) == 1, "it is not sent again"


@pytest.mark.parametrize("by_hand", ["test", "redeliver"])
def test_what_is_asked_for_by_hand_of_a_disabled_endpoint_is_sent_once(place, receiver, by_hand):
    it = endpoint(place, receiver)
    receiver.status = 500
    events(place, 1)
    place.send()
    place.services.endpoints.edit(place.project, it, EndpointChange(enabled=False))
    upkept(place)
    (old,) = deliveries(place)
    assert old.state == "failed"
    before = len(receiver.got)
    if by_hand == "test":
        place.services.endpoints.test(place.project, it)
    else:
        place.services.deliveries.redeliver(place.project, old.id)
    place.services.upkeep.tick()
    until(lambda: place.send() or len(receiver.got) == before + 1, "upkeep leaves it alone")
    for _ in range(12):
        place.services.upkeep.tick()
        lived(place, 3600, 3600)
    assert len(receiver.got) == before + 1, "and it is not tried again"
    assert {d.state for d in deliveries(place)} == {"failed"}


def test_what_was_being_written_while_the_endpoint_was_disabled_is_not_sent(place, receiver):
    it = endpoint(place, receiver)
    place.services.endpoints.edit(place.project, it, EndpointChange(enabled=False))
    events(place, 1)  # makes no delivery, as it should; one that was under way did
    place.change(
        "INSERT INTO deliveries (id, project_id, event_id, receiver_id, endpoint_id, type, url, due_at, created_at)"
        " SELECT :id, e.project_id, e.id, r.id, r.endpoint_id, e.type, 'http://x', :now, :now FROM events e, receivers r"
        " WHERE e.type = 'generation.cancelled'",
        id=ids.uuid7(place.now()), now=place.now(),
    )  # fmt: skip
    assert place.send() == 0
    upkept(place)
    assert [d.state for d in deliveries(place)] == ["failed"]
    assert receiver.got == []


def test_a_host_that_is_gone_is_given_up_and_gets_another_chance(place, receiver, monkeypatch):
    monkeypatch.setattr("tracker.services.upkeep.GIVEN_UP_AT_ONCE", 2)
    url = f"{receiver.url}/own"
    receiver.status = 500
    events(place, 1, "first", webhook_url=url)
    place.send()
    place.services.database.ahead += 5 * DAY
    place.change("UPDATE deliveries SET due_at = due_at + interval '20 days'")
    events(place, 1, "last", webhook_url=url)
    place.send()
    receiver.status, before = 204, len(receiver.got)
    place.change("UPDATE deliveries SET due_at = :now WHERE state = 'pending'", now=place.now())
    assert place.send() == 0, "what waited is not sent any more"
    upkept(place)
    assert [d.state for d in deliveries(place)] == ["failed", "failed"]
    place.services.upkeep.tick()
    events(place, 1, "new", webhook_url=url)
    until(lambda: place.send() or len(receiver.got) == before + 1, "the new one arrives")


def test_a_retry_after_holds_though_an_earlier_request_ends_well(place, receiver):
    it = endpoint(place, receiver, "/busy")
    gate = receiver.hang("/busy")
    events(place, 1, "early")
    place.services.delivery.send_due(patience=0.1)
    until(lambda: receiver.got, "one is in flight")
    place.change(
        "UPDATE receivers SET asked_until = :at, failing = 1, failing_since = :now WHERE endpoint_id = :id",
        at=place.now() + timedelta(seconds=120), now=place.now(), id=it,
    )  # fmt: skip
    gate.set()
    place.send()
    events(place, 3, "more")
    lived(place, 100, 20)
    assert len(receiver.got) == 1
    lived(place, 40, 20)
    assert len(receiver.got) == 4


def test_deliveries_are_kept_so_long_after_they_ended(place, receiver):
    endpoint(place, receiver)
    receiver.status = 500
    events(place, 1)
    place.send()
    place.services.database.ahead += 31 * DAY
    receiver.status = 204
    place.send()
    (delivery,) = deliveries(place)
    assert delivery.state == "delivered"
    place.services.upkeep.sweep()
    assert len(attempts(place)) == 2, "it ended just now"
    place.services.database.ahead += 29 * DAY
    place.services.upkeep.sweep()
    assert len(deliveries(place)) == 1
    place.services.database.ahead += 1.1 * DAY
    place.services.upkeep.sweep()
    assert deliveries(place) == []


@pytest.fixture
def strict(settings):
    """An installation that gives up within a day, and keeps what ended for two."""
    built = wiring.build(settings.changed(endpoint_disable_after=DAY, deliveries_kept=2 * DAY))
    yield built
    built.close()


def test_when_an_endpoint_is_disabled_and_what_is_kept_can_be_configured(place, receiver, strict):
    it = endpoint(place, receiver)
    receiver.status = 500
    events(place, 1)
    strict.database.ahead = place.services.database.ahead
    strict.delivery.send_due()
    strict.database.ahead += 0.9 * DAY
    strict.delivery.send_due()
    assert enabled(place, it)
    strict.database.ahead += 0.2 * DAY
    strict.delivery.send_due()
    assert "every attempt failed for 26 hours" in str(place.services.endpoints.get(place.project, it).disabled_reason)
    upkept(place, strict)
    strict.database.ahead += 1.9 * DAY
    strict.upkeep.sweep()
    assert [d.state for d in deliveries(place)] == ["failed"]
    strict.database.ahead += 0.2 * DAY
    strict.upkeep.sweep()
    assert deliveries(place) == []


def test_a_long_schedule_of_its_own_is_seen_through(place, receiver):
    it = endpoint(place, receiver, schedule=[0, 86_400 * 4, 86_400 * 4])
    receiver.status = 500
    events(place, 1)
    place.send()
    lived(place, 9.7 * 86_400, 0.3 * 86_400, look=lambda: len(receiver.got) == 2)
    lived(place, 9.7 * 86_400, 0.3 * 86_400, look=lambda: len(receiver.got) == 3)
    assert [d.attempts for d in deliveries(place)] == [3], "its last attempt was made"
    place.services.database.ahead += 10 * DAY
    events(place, 1, "later")
    place.send()
    assert not enabled(place, it)
