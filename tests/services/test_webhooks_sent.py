"""Deliveries through the real sender to a real receiver: signatures, retries, redelivery, recovery, and who waits for whom."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks.webhooks import Webhook

from tracker.core.backoff import WEBHOOK_SCHEDULE
from tracker.errors import ConflictError, NotFoundError
from tracker.services.forms import EndpointChange, EndpointForm

from .conftest import Place, Receiver, Relay, signed_by, until
from .test_delivery_flow import upkept


@pytest.fixture
def endpoint(place: Place, receiver: Receiver) -> Any:
    return place.services.endpoints.create(place.project, EndpointForm(url=f"{receiver.url}/hook"))


def _ping(place: Place, endpoint: Any) -> UUID:
    return place.services.endpoints.test(place.project, endpoint.id)


def _delivery(place: Place, delivery: UUID) -> tuple[Any, list[Any]]:
    return place.services.deliveries.get(place.project, delivery)


def test_what_is_sent_verifies_with_the_independent_library(
    place: Place, relay: Relay, receiver: Receiver, endpoint: Any
) -> None:
    g = place.register(relay.create(age=100, duration=1), webhook_url=f"{receiver.url}/own", metadata={"n": "ü"})
    place.poll()
    place.send()
    assert sorted(got.path for got in receiver.got) == ["/hook", "/own"]
    secrets = {
        "/hook": place.services.endpoints.secret(place.project, endpoint.id),
        "/own": place.services.endpoints.project_secret(place.project),
    }
    for got in receiver.got:
        event = Webhook(secrets[got.path]).verify(got.body, got.headers)
        assert event["type"] == "generation.completed"
        assert event["data"]["metadata"] == {"n": "ü"}
    first, second = receiver.got
    assert first.headers["webhook-id"] == second.headers["webhook-id"], "one event, one id, whoever gets it"
    assert first.headers["webhook-id"].startswith("evt_")
    assert first.body == second.body
    rows, _ = place.services.deliveries.page(place.project, None, 10, generation_id=g.id)
    assert {row.state for row in rows} == {"delivered"}


def test_a_rotated_secret_signs_beside_the_new_one_for_a_day(place: Place, receiver: Receiver, endpoint: Any) -> None:
    endpoints = place.services.endpoints
    old = endpoints.secret(place.project, endpoint.id)
    new = endpoints.rotate_secret(place.project, endpoint.id)
    assert endpoints.secret(place.project, endpoint.id) == new != old
    _ping(place, endpoint)
    place.send()
    place.ahead(24 * 3600 + 1)
    _ping(place, endpoint)
    place.send()
    during, after = receiver.got
    assert signed_by(during, new)
    assert signed_by(during, old)
    assert signed_by(after, new)
    assert not signed_by(after, old)


def test_retries_follow_the_schedule_and_the_body_never_changes(
    place: Place, receiver: Receiver, endpoint: Any
) -> None:
    receiver.status = 500
    delivery = _ping(place, endpoint)
    waits = []
    for number in range(1, len(WEBHOOK_SCHEDULE) + 1):
        assert place.send() == 1
        row, attempts = _delivery(place, delivery)
        assert [attempt.number for attempt in attempts] == list(range(1, number + 1))
        assert (attempts[-1].status_code, attempts[-1].error_class) == (500, "status")
        if row.state == "failed":
            break
        waits.append((row.due_at - place.now()).total_seconds())
        assert place.send() == 0, "not before its time"
        place.ahead(waits[-1] + 0.5)
    assert _delivery(place, delivery)[0].state == "failed"
    assert len(waits) == len(WEBHOOK_SCHEDULE) - 1
    for wait, planned in zip(waits, WEBHOOK_SCHEDULE[1:], strict=True):
        assert 0.79 * planned - 2 <= wait <= 1.21 * planned
    assert len({got.body for got in receiver.got}) == 1
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1
    assert len({got.headers["webhook-timestamp"] for got in receiver.got}) == len(receiver.got)


def test_a_receivers_retry_after_lengthens_the_wait(place: Place, receiver: Receiver, endpoint: Any) -> None:
    receiver.status, receiver.headers = 503, {"Retry-After": "1800"}
    delivery = _ping(place, endpoint)
    place.send()
    row, _ = _delivery(place, delivery)
    assert 1790 <= (row.due_at - place.now()).total_seconds() <= 1801


def test_a_redirect_is_not_followed_and_no_success(place: Place, receiver: Receiver, endpoint: Any) -> None:
    receiver.status, receiver.headers = 302, {"Location": f"{receiver.url}/elsewhere"}
    delivery = _ping(place, endpoint)
    place.send()
    assert [got.path for got in receiver.got] == ["/hook"]
    assert _delivery(place, delivery)[1][0].error_class == "redirect"


def test_a_receiver_that_is_gone_is_disabled_and_the_others_are_told(
    place: Place, relay: Relay, receiver: Receiver, endpoint: Any
) -> None:
    place.services.endpoints.create(
        place.project, EndpointForm(url=f"{receiver.url}/other", events=["endpoint.disabled"])
    )
    receiver.status = 410
    waiting = [_ping(place, endpoint) for _ in range(6)]
    place.send()
    gone = place.services.endpoints.get(place.project, endpoint.id)
    assert not gone.enabled
    assert "410" in str(gone.disabled_reason)
    upkept(place, endpoint_id=endpoint.id)
    assert {_delivery(place, one)[0].state for one in waiting} == {"failed"}
    receiver.status = 204
    place.send()
    told = [got for got in receiver.got if got.path == "/other"]
    assert {got.event["type"] for got in told} == {"endpoint.disabled"}
    g = place.register(relay.create(age=100, duration=1), webhook_url=f"{receiver.url}/own")
    place.poll()
    rows, _ = place.services.deliveries.page(place.project, None, 10, generation_id=g.id)
    assert [row.endpoint_id for row in rows] == [None], "nothing is made for a disabled endpoint"


def test_a_redelivery_cancels_the_automatic_try(place: Place, receiver: Receiver, endpoint: Any) -> None:
    receiver.status = 500
    delivery = _ping(place, endpoint)
    place.send()
    receiver.status = 204
    place.services.deliveries.redeliver(place.project, delivery)
    assert place.send() == 1
    row, attempts = _delivery(place, delivery)
    assert (row.state, len(attempts)) == ("delivered", 2)
    place.ahead(3600)
    assert place.send() == 0, "the automatic one is not sent besides"
    place.services.deliveries.redeliver(place.project, delivery)
    assert place.send() == 1, "a delivered one, too, is sent again when asked for"
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 1
    with pytest.raises(NotFoundError):
        place.services.deliveries.redeliver(place.services.keys.project("other", make=True).project_id, delivery)


def test_a_redelivery_while_it_is_being_sent_counts_as_that(place: Place, receiver: Receiver, endpoint: Any) -> None:
    gate = receiver.hang("/hook")
    delivery = _ping(place, endpoint)
    sending = threading.Thread(target=place.send)
    sending.start()
    until(lambda: receiver.got, "the receiver has it")
    place.services.deliveries.redeliver(place.project, delivery)
    gate.set()
    sending.join(10)
    assert _delivery(place, delivery)[0].state == "delivered"
    place.ahead(3600)
    assert place.send() == 0
    assert len(receiver.got) == 1


def test_a_lease_that_lapsed_is_no_attempt(place: Place, receiver: Receiver, endpoint: Any) -> None:
    delivery = _ping(place, endpoint)
    place.change(
        "UPDATE deliveries SET fence = fence + 1, lease_until = now() + interval '45 s', due_at = now() + interval '45 s' WHERE id = :id",
        id=delivery,
    )
    assert place.send() == 0, "somebody else is sending it"
    place.ahead(46)
    assert place.send() == 1
    row, attempts = _delivery(place, delivery)
    assert row.state == "delivered"
    assert [attempt.number for attempt in attempts] == [1]


def test_one_hanging_receiver_stops_nobody_else(place: Place, receiver: Receiver, endpoint: Any) -> None:
    stuck = place.services.endpoints.create(place.project, EndpointForm(url=f"{receiver.url}/stuck"))
    gate = receiver.hang("/stuck")
    for _ in range(20):
        _ping(place, stuck)
    mine = [_ping(place, endpoint) for _ in range(30)]
    sending = threading.Thread(target=place.send)
    began = time.monotonic()
    sending.start()
    until(lambda: sum(got.path == "/hook" for got in receiver.got) == 30, "all of the healthy one arrived", 8)
    assert time.monotonic() - began < 8
    until(
        lambda: all(_delivery(place, one)[0].state == "delivered" for one in mine),
        "and they are recorded while the other hangs",
        8,
    )
    assert 1 <= sum(got.path == "/stuck" for got in receiver.got) <= 4, "only so many wait for it at a time"
    gate.set()
    sending.join(20)
    assert not sending.is_alive()


def test_recovery_sends_what_failed_and_what_was_missed_in_order(
    place: Place, relay: Relay, receiver: Receiver, endpoint: Any
) -> None:
    since = place.now()
    receiver.status = 410
    first = place.register(relay.create(age=100, duration=1))
    place.poll()
    place.send()
    place.ahead(1)
    missed = []
    for _ in range(3):
        missed.append(place.register(relay.create(age=100, duration=1)))
        place.poll()
        place.ahead(1)
    with pytest.raises(ConflictError, match="disabled"):
        place.services.endpoints.recover(place.project, endpoint.id, since)
    place.services.endpoints.edit(place.project, endpoint.id, EndpointChange(enabled=True))
    receiver.status, before = 204, len(receiver.got)
    assert place.services.endpoints.recover(place.project, endpoint.id, since).count == 4
    until(lambda: place.send() or len(receiver.got) - before >= 4, "everything is sent again")
    until(lambda: place.send() == 0, "nothing is left")
    arrived = [(got.event["type"], got.event["data"]["id"]) for got in receiver.got[before:]]
    from tracker.core import ids

    assert arrived == [("generation.completed", ids.public("gen", g.id)) for g in (first, *missed)]
    assert place.services.endpoints.recover(place.project, endpoint.id, since).count == 0, (
        "asked again, nothing is missing"
    )


def test_recovery_tells_of_others_that_were_disabled_and_not_of_itself(
    place: Place, relay: Relay, receiver: Receiver, endpoint: Any
) -> None:
    other = place.services.endpoints.create(place.project, EndpointForm(url=f"{receiver.url}/other"))
    since = place.now()
    receiver.status = 410
    place.register(relay.create(age=100, duration=1))
    place.poll()
    until(lambda: place.send() == 0, "both are gone")
    receiver.status, before = 204, len(receiver.got)
    place.services.upkeep.tick()
    for one in (endpoint, other):
        place.services.endpoints.edit(place.project, one.id, EndpointChange(enabled=True))
        place.services.endpoints.recover(place.project, one.id, since)
    until(lambda: place.send() == 0, "nothing is left")
    from tracker.core import ids

    told = {
        (got.path, got.event["data"]["endpoint_id"]) for got in receiver.got[before:] if "endpoint" in got.event["type"]
    }
    assert told == {("/hook", ids.public("ep", other.id)), ("/other", ids.public("ep", endpoint.id))}


def test_filters_choose_by_event_tag_and_provider(place: Place, relay: Relay, receiver: Receiver) -> None:
    create = place.services.endpoints.create
    create(place.project, EndpointForm(url=f"{receiver.url}/tagged", tags=["mine"]))
    create(place.project, EndpointForm(url=f"{receiver.url}/failures", events=["generation.failed"]))
    create(place.project, EndpointForm(url=f"{receiver.url}/suno", providers=["luma-official"]))
    place.register(relay.create(age=100, duration=1), tags=["mine", "more"])
    place.register(relay.create(age=100, duration=1, misbehaviour="failed"))
    place.poll()
    place.send()
    assert sorted((got.path, got.event["type"]) for got in receiver.got) == [
        ("/failures", "generation.failed"),
        ("/tagged", "generation.completed"),
    ]


def test_headers_are_sent_and_kept_secret(place: Place, receiver: Receiver) -> None:
    made = place.services.endpoints.create(
        place.project, EndpointForm(url=f"{receiver.url}/hook", headers={"X-Token": "s3cret"})
    )
    assert made.header_names == ("X-Token",)
    assert b"s3cret" not in (made.headers or b"")
    _ping(place, made)
    place.send()
    assert receiver.got[0].headers["x-token"] == "s3cret"


def test_an_unreadable_secret_is_that_endpoints_failure_alone(place: Place, receiver: Receiver, endpoint: Any) -> None:
    broken = place.services.endpoints.create(place.project, EndpointForm(url=f"{receiver.url}/broken"))
    place.change("UPDATE signing_secrets SET secret = 'garbage' WHERE endpoint_id = :id", id=broken.id)
    bad, good = _ping(place, broken), _ping(place, endpoint)
    place.send()
    assert _delivery(place, good)[0].state == "delivered"
    row, attempts = _delivery(place, bad)
    assert row.state == "pending"
    assert attempts[0].error_class == "protocol"
    assert timedelta(0) < row.due_at - place.now() < timedelta(seconds=10)


def test_webhooks_can_be_stopped(place: Place, receiver: Receiver, endpoint: Any) -> None:
    place.services.health.stop("webhooks", "maintenance")
    _ping(place, endpoint)
    assert place.send() == 0
    place.services.health.resume("webhooks")
    assert place.send() == 1


def test_the_log_names_the_receiver_and_no_secret_of_its_url(
    place: Place, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.status = 500
    url = f"{receiver.url}/services/T0123/s3cret-path?token=s3cret-query"
    made = place.services.endpoints.create(place.project, EndpointForm(url=url))
    with caplog.at_level("DEBUG"):
        _ping(place, made)
        place.send()
    assert f"webhook ping to {receiver.url}: status 500" in caplog.text
    assert "s3cret" not in caplog.text
