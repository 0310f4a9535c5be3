"""Receivers that are slow, busy, broken or gone: nobody else waits, nothing is lost, and what is asked for by hand is done at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tracker import wiring
from tracker.core import backoff, circuit
from tracker.core.events import EventType
from tracker.couriers.webhook import Attempt
from tracker.errors import ConflictError
from tracker.services import steps
from tracker.services.aftermath import Sent
from tracker.services.forms import EndpointChange, EndpointForm
from tracker.store import db, outbox, sending

from .conftest import Place, Receiver, signed_by, until

DAY = 86_400.0


def endpoint(place: Place, receiver: Receiver, path: str = "/", **fields: Any) -> UUID:
    return place.services.endpoints.create(place.project, EndpointForm(url=receiver.url + path, **fields)).id


def events(place: Place, count: int, prefix: str = "t", **fields: Any) -> list[UUID]:
    """So many generations, each cancelled: one event each."""
    made = []
    for n in range(count):
        g = place.register(f"{prefix}{n}", **fields)
        place.services.generations.cancel(place.project, g.id)
        made.append(g.id)
    return made


def deliveries(place: Place, **where: Any) -> list[Any]:
    return place.services.deliveries.page(place.project, None, 1000, **where)[0]


def upkept(place: Place, services: wiring.Services | None = None, **where: Any) -> None:
    """Upkeep has ended what waited. A tick passes over a receiver that the sender, which looks around for a while yet, holds just then."""
    look = (services or place.services).upkeep.tick
    until(lambda: look() or not deliveries(place, state="pending", **where), "what waits is ended")


def attempts(place: Place) -> list[Any]:
    return place.rows(
        "SELECT a.*, d.type FROM attempts a JOIN deliveries d ON d.id = a.delivery_id ORDER BY a.at, a.number"
    )


def lived(place: Place, seconds: float, step: float, look=lambda: False) -> None:
    """Let time pass in steps, sending what falls due."""
    passed = 0.0
    while passed < seconds and not look():
        place.services.database.ahead += timedelta(seconds=step)
        passed += step
        place.send()


def test_every_retry_of_the_schedule_is_made_and_logged(place, receiver):
    receiver.status = 500
    endpoint(place, receiver)
    events(place, 1)
    began = place.now()
    place.send()
    (delivery,) = deliveries(place)
    for n in range(1, 10):
        (delivery,) = deliveries(place)
        wait = (delivery.due_at - place.now()).total_seconds()
        assert 0.79 * backoff.WEBHOOK_SCHEDULE[n] - 1 <= wait <= 1.21 * backoff.WEBHOOK_SCHEDULE[n]
        place.services.database.ahead += timedelta(seconds=wait + 0.01)
        assert place.send() == 1
    (delivery,) = deliveries(place)
    assert (delivery.state, delivery.due_at, delivery.attempts) == ("failed", None, 10)
    found = attempts(place)
    assert [a["number"] for a in found] == list(range(1, 11))
    assert {(a["status_code"], a["error_class"]) for a in found} == {(500, "status")}
    assert all("/" in a["worker"] for a in found)
    assert found[-1]["at"] - began > timedelta(hours=60)
    assert len({(got.headers["webhook-id"], got.body) for got in receiver.got}) == 1


def test_a_schedule_of_the_endpoints_own(place, receiver):
    receiver.status = 500
    endpoint(place, receiver, schedule=[0, 10, 20])
    events(place, 1)
    lived(place, 60, 5)
    assert len(receiver.got) == 3
    assert [d.state for d in deliveries(place)] == ["failed"]


def test_the_first_wait_of_a_schedule_counts_too(place, receiver):
    endpoint(place, receiver, schedule=[60, 10])
    events(place, 1)
    lived(place, 55, 11)
    assert receiver.got == []
    lived(place, 11, 11)
    assert len(receiver.got) == 1


def test_a_delivery_tells_where_it_goes_and_where_it_went_and_when_next(place, receiver):
    it = endpoint(place, receiver, "/old")
    receiver.status = 500
    events(place, 1)
    place.send()
    (delivery,) = deliveries(place)
    assert (delivery.url, delivery.due_at is None) == (f"{receiver.url}/old", False)
    place.services.endpoints.edit(place.project, it, EndpointChange(url=f"{receiver.url}/new"))
    (delivery,) = deliveries(place)
    assert delivery.url == f"{receiver.url}/new", "it will go there"
    receiver.status, gate = 204, receiver.hang("/new")
    place.services.database.ahead += timedelta(seconds=10)
    place.services.delivery.send_due(patience=0.1)
    until(lambda: len(receiver.got) == 2, "it is in flight")
    assert deliveries(place)[0].due_at is None
    gate.set()
    place.send()
    place.services.endpoints.edit(place.project, it, EndpointChange(url=f"{receiver.url}/newest"))
    (delivery,) = deliveries(place)
    assert (delivery.state, delivery.url) == ("delivered", f"{receiver.url}/new"), "it went there"
    made = place.services.deliveries.get(place.project, delivery.id)[1]
    assert {"/" in attempt.worker for attempt in made} == {True}


def test_an_attempt_is_logged_at_its_beginning_however_late_its_record_is(place, receiver):
    endpoint(place, receiver)
    events(place, 1)
    with place.services.database.transaction() as tx:
        (outgoing,) = sending.claim(tx, limit=1, late=0).outgoing
    sent = Sent(outgoing, Attempt(2000, 204, None, "", None), landed=time.monotonic() - 7)
    place.services.delivery._aftermath.record([sent])
    (attempt,) = attempts(place)
    assert place.now() - attempt["at"] - timedelta(seconds=9) < timedelta(seconds=2)
    assert place.now() - attempt["at"] > timedelta(seconds=9)


def test_a_rate_limit_holds_over_all_workers_and_costs_no_attempt(place, receiver, settings):
    endpoint(place, receiver, "/free")
    others = [wiring.build(settings) for _ in range(2)]
    senders = [place.services, *others]
    # What each does the first time, connecting and planning, is no part of its pace.
    for n, sender in enumerate(senders):
        events(place, 1, f"first{n}-")
        sender.delivery.send_due()
    receiver.got.clear()
    endpoint(place, receiver, "/slow", rate_limit=20)
    events(place, 40)  # the senders are awake: the first ones leave meanwhile
    with ThreadPoolExecutor(3) as pool:
        until(
            lambda: list(pool.map(lambda s: s.delivery.send_due(), senders)) and len(receiver.got) >= 80,
            "everything arrived", 20,
        )  # fmt: skip
    for built in others:
        built.close()
    limited = [got for got in receiver.got if got.path == "/slow"]
    assert len(limited) == len({got.headers["webhook-id"] for got in limited}) == 40
    found = place.rows(
        "SELECT a.at, d.attempts FROM attempts a JOIN deliveries d ON d.id = a.delivery_id WHERE d.url LIKE '%/slow' ORDER BY a.at"
    )
    moments = [(row["at"] - found[0]["at"]).total_seconds() for row in found]
    assert {row["attempts"] for row in found} == {1}, "what is held back is not an attempt"
    burst = 20 * sending.BURST
    for i, first in enumerate(moments):
        for j in range(i, len(moments)):
            assert j - i + 1 <= burst + 20 * (moments[j] - first) + 1.5, "more than the purse held"
    assert moments[-1] > 1.5
    assert (
        max(
            place.rows(
                "SELECT max(a.at) AS at FROM attempts a JOIN deliveries d ON d.id = a.delivery_id WHERE d.url LIKE '%/free'"
            )[0].values()
        )
        < found[-1]["at"]
    )


def test_no_more_than_the_cap_are_in_flight_over_all_workers(place, receiver, settings):
    gate = receiver.hang("/hang")
    endpoint(place, receiver, "/hang")
    events(place, 30)
    others = [wiring.build(settings) for _ in range(2)]
    for built in (place.services, *others):
        built.delivery.send_due(patience=0.3)
    until(lambda: len(receiver.got) >= 4, "four are in flight")
    for built in (place.services, *others):
        built.delivery.send_due(patience=0.1)
    assert len(receiver.got) == 4
    gate.set()

    def all_there() -> bool:
        place.send()  # each of the three takes what it finds room for
        return len(receiver.got) >= 30

    until(all_there, "all others arrived")
    for built in others:
        built.close()
    assert len(receiver.got) == 30
    assert len({got.headers["webhook-id"] for got in receiver.got}) == 30


def test_who_hangs_holds_up_nobody(place, receiver):
    gate = receiver.hang("/hang")
    endpoint(place, receiver, "/hang")
    endpoint(place, receiver, "/good")
    events(place, 20)
    place.services.delivery.send_due(patience=0.5)
    until(lambda: sum(got.path == "/good" for got in receiver.got) == 20, "the good one has all", 20)
    until(
        lambda: sum(got.path == "/hang" for got in receiver.got) == 4, "the hanging one has as many as its cap allows"
    )
    # A ring finds somebody at once, although four are still in flight.
    events(place, 1, "late")
    place.services.delivery.send_due(patience=0.5)
    until(lambda: sum(got.path == "/good" for got in receiver.got) == 21, "a new one arrives beside them", 20)
    gate.set()
    until(lambda: place.send() or len(receiver.got) == 42, "the hanging one gets all of its own")


def test_more_who_hang_than_a_process_has_room_for_hold_up_nobody(place, receiver, monkeypatch):
    monkeypatch.setattr("tracker.services.delivery.AT_ONCE", 40)
    gates = [receiver.hang(f"/hang{n}") for n in range(12)]
    for n in range(12):
        endpoint(place, receiver, f"/hang{n}")
    events(place, 10)
    place.services.delivery.send_due(patience=0.3)
    until(lambda: len({got.path for got in receiver.got}) == 12, "each of them hangs")
    endpoint(place, receiver, "/good")
    events(place, 20, "more")
    place.services.delivery.send_due(patience=0.3)
    until(lambda: sum(got.path == "/good" for got in receiver.got) == 20, "the good one has all, beside them", 10)
    assert len(receiver.got) - 20 <= 32
    assert {len([got for got in receiver.got if got.path == f"/hang{n}"]) for n in range(12)} <= {1, 2, 3, 4}
    for gate in gates:
        gate.set()


def test_a_backlog_of_retries_never_delays_first_attempts(place, receiver):
    receiver.status = 500
    endpoint(place, receiver, "/r")
    old = events(place, 30)
    place.send()
    place.services.database.ahead += timedelta(seconds=10)
    gate = receiver.hang("/r")
    receiver.status = 204
    before = len(receiver.got)
    place.services.delivery.send_due(patience=0.3)
    until(lambda: len(receiver.got) == before + 2, "retries take half of the cap")
    events(place, 2, "new")
    place.services.delivery.send_due(patience=0.3)
    until(lambda: len(receiver.got) == before + 4, "first attempts get the other half")
    newest = [got.event["data"]["task_id"] for got in receiver.got[before + 2 :]]
    assert sorted(newest) == ["new0", "new1"]
    gate.set()
    until(lambda: place.send() or not deliveries(place, state="pending"), "all are delivered")
    assert len(deliveries(place, state="delivered")) == len(old) + 2


def silent(place: Place) -> str:
    """A URL that nobody answers: a closed port fails at once, and counts like a timeout."""
    return "http://127.0.0.1:9/gone"


def test_an_open_circuit_spends_no_attempts_and_closes_at_the_first_success(place, receiver):
    place.services.endpoints.create(place.project, EndpointForm(url=silent(place)))
    endpoint(place, receiver, "/good")
    events(place, 40)
    place.send()
    tried = place.scalar("SELECT count(*) FROM attempts WHERE error_class = 'connect'")
    assert circuit.OPENS <= tried <= circuit.OPENS + 4, "the circuit opened"
    assert len(receiver.got) == 40, "and nobody else noticed"
    row = place.rows("SELECT * FROM receivers WHERE failing > 0")[0]
    assert row["quiet_until"] > place.now()
    place.send()
    assert place.scalar("SELECT count(*) FROM attempts WHERE error_class = 'connect'") == tried
    place.services.database.ahead += timedelta(seconds=circuit.LONGEST_QUIET)
    assert place.send() == 1, "one probe"
    place.services.database.ahead += timedelta(seconds=circuit.LONGEST_QUIET * 1.2)
    place.change("UPDATE endpoints SET url = :url WHERE url LIKE '%gone'", url=receiver.url + "/back")
    lived(place, 60, 10)
    assert sum(got.path == "/back" for got in receiver.got) == 40, "nothing was lost"
    assert {d.state for d in deliveries(place)} == {"delivered"}
    assert place.scalar("SELECT max(attempts) FROM deliveries") <= 4
    assert place.scalar("SELECT count(*) FROM receivers WHERE failing > 0 OR quiet_until IS NOT NULL") == 0


def test_retry_after_of_a_busy_receiver_is_about_all_of_it(place, receiver):
    receiver.status, receiver.headers = 429, {"Retry-After": "120"}
    endpoint(place, receiver)
    events(place, 1)
    place.send()
    receiver.status, receiver.headers = 204, {}
    events(place, 3, "more")
    lived(place, 100, 20)
    assert len(receiver.got) == 1
    lived(place, 60, 20)
    assert len(receiver.got) == 5


def test_after_five_days_of_failures_an_endpoint_is_disabled_with_its_reason(place, receiver):
    failing = endpoint(place, receiver, "/broken")
    endpoint(place, receiver, "/other", events=["endpoint.disabled"])
    receiver.status = 500
    n = 0
    while place.services.endpoints.get(place.project, failing).enabled:
        events(place, 1, f"day{n}-")
        place.send()
        n += 1
        place.services.database.ahead += timedelta(hours=12)
        assert n < 12, "still enabled after five days"
    assert n == 11
    found = place.services.endpoints.get(place.project, failing)
    assert "every attempt failed for 5 days" in (found.disabled_reason or "")
    assert "status 500" in (found.disabled_reason or "")
    receiver.status = 204
    place.send()
    told = [got for got in receiver.got if got.path == "/other"][-1]
    assert len({got.headers["webhook-id"] for got in receiver.got if got.path == "/other"}) == 1
    assert told.event["type"] == "endpoint.disabled"
    assert told.event["data"]["reason"] == found.disabled_reason
    upkept(place, endpoint_id=failing)


def test_one_success_starts_the_five_days_anew(place, receiver):
    it = endpoint(place, receiver)
    for n in range(20):
        receiver.status = 204 if n == 8 else 500
        events(place, 1, f"n{n}-")
        place.send()
        place.services.database.ahead += timedelta(hours=12)
        if n == 17:
            assert place.services.endpoints.get(place.project, it).enabled
    assert not place.services.endpoints.get(place.project, it).enabled


def test_gone_disables_at_once(place, receiver):
    it = endpoint(place, receiver)
    receiver.status = 410
    events(place, 2)
    place.send()
    found = place.services.endpoints.get(place.project, it)
    assert (found.enabled, found.disabled_reason) == (False, "the receiver answered 410 Gone")
    upkept(place)
    assert {d.state for d in deliveries(place)} == {"failed"}


def test_recover_sends_what_failed_and_what_was_missed_in_order_and_once(place, receiver):
    it = endpoint(place, receiver, schedule=[0])
    since = place.now()
    receiver.status = 500
    events(place, 5, "failed")
    place.send()
    place.services.endpoints.edit(place.project, it, EndpointChange(enabled=False))
    events(place, 7, "missed")
    with pytest.raises(ConflictError):
        place.services.endpoints.recover(place.project, it, since)
    receiver.status = 204
    place.services.endpoints.edit(place.project, it, EndpointChange(enabled=True))
    before = len(receiver.got)
    assert place.services.endpoints.recover(place.project, it, since).count == 12
    assert place.services.endpoints.recover(place.project, it, since).count == 0
    place.send()
    again = receiver.got[before:]
    tasks = [got.event["data"]["task_id"] for got in again]
    assert tasks == [f"failed{n}" for n in range(5)] + [f"missed{n}" for n in range(7)]
    secret = place.services.endpoints.secret(place.project, it)
    assert all(signed_by(got, secret) for got in again)
    first = {got.headers["webhook-id"] for got in receiver.got[:before]}
    assert {got.headers["webhook-id"] for got in again[:5]} == first, "the same id as the first time"


def test_a_recovery_begins_at_once_and_goes_on_with_the_ticks(place, receiver, monkeypatch):
    monkeypatch.setattr("tracker.services.recovery.SLICE", 4)
    it = endpoint(place, receiver)
    since = place.now()
    place.services.endpoints.edit(place.project, it, EndpointChange(enabled=False))
    events(place, 10)
    place.services.endpoints.edit(place.project, it, EndpointChange(enabled=True))
    begun = place.services.endpoints.recover(place.project, it, since)
    assert (begun.count, begun.complete) == (4, False)
    place.send()
    assert len(receiver.got) == 4
    until(lambda: place.services.upkeep.tick() or not under_way(place), "it comes to its end")
    place.send()
    assert [got.event["data"]["task_id"] for got in receiver.got] == [f"t{n}" for n in range(10)]


def under_way(place: Place) -> int:
    return int(place.scalar("SELECT count(*) FROM receivers WHERE replay_after IS NOT NULL"))


def test_a_recovery_finds_what_was_being_written_while_it_was_asked_for(place, receiver):
    """Published while the endpoint was off, and committed after the recovery has passed its id."""
    it = endpoint(place, receiver)
    since = place.now()
    place.services.endpoints.edit(place.project, it, EndpointChange(enabled=False))
    with place.services.database.transaction() as writing:
        now = db.now(writing)
        late = steps.of_project(EventType.CREDENTIAL_RESUMED, place.project, {"name": "late"}, now)
        assert outbox.publish(writing, [(late, None)], now) == 0
        place.services.database.ahead += timedelta(seconds=1)
        events(place, 3)
        place.services.endpoints.edit(place.project, it, EndpointChange(enabled=True))
        begun = place.services.endpoints.recover(place.project, it, since)
        assert (begun.count, begun.complete) == (3, False)
        for _ in range(2):
            place.services.upkeep.tick()
        place.send()
        assert under_way(place), "it waits for what is being written"
    until(lambda: place.services.upkeep.tick() or not under_way(place), "it comes to its end")
    place.send()
    assert receiver.types() == ["generation.cancelled"] * 3 + ["credential.resumed"]
    assert place.services.endpoints.recover(place.project, it, since).count == 0


def test_a_recovery_ends_when_its_endpoint_is_disabled(place, receiver, monkeypatch):
    monkeypatch.setattr("tracker.services.recovery.SLICE", 2)
    it = endpoint(place, receiver)
    since = place.now()
    place.services.endpoints.edit(place.project, it, EndpointChange(enabled=False))
    events(place, 5)
    place.services.endpoints.edit(place.project, it, EndpointChange(enabled=True))
    place.services.endpoints.recover(place.project, it, since)
    place.services.endpoints.edit(place.project, it, EndpointChange(enabled=False))
    assert not under_way(place)


def test_a_redelivery_cancels_the_automatic_next_try(place, receiver):
    receiver.status = 500
    endpoint(place, receiver)
    events(place, 1)
    place.send()
    receiver.status = 204
    (delivery,) = deliveries(place)
    assert delivery.due_at > place.now()
    place.services.deliveries.redeliver(place.project, delivery.id)
    place.send()
    lived(place, DAY, DAY / 4)
    assert len(receiver.got) == 2
    (delivery,) = deliveries(place)
    assert (delivery.state, delivery.attempts) == ("delivered", 2)


def test_a_send_already_running_counts_as_the_redelivery(place, receiver):
    gate = receiver.hang("/")
    endpoint(place, receiver)
    events(place, 1)
    place.services.delivery.send_due(patience=0.1)
    until(lambda: receiver.got, "it is under way")
    (delivery,) = deliveries(place)
    place.services.deliveries.redeliver(place.project, delivery.id)
    gate.set()
    place.send()
    assert len(receiver.got) == 1
    assert [d.state for d in deliveries(place)] == ["delivered"]


def test_redeliveries_and_the_sender_race_without_loss_or_double_claim(place, receiver):
    receiver.status = 500
    endpoint(place, receiver, schedule=[0, 0, 0, 0, 0, 0])
    events(place, 6)
    stop = threading.Event()

    def redeliver() -> None:
        while not stop.is_set():
            for delivery in deliveries(place):
                place.services.deliveries.redeliver(place.project, delivery.id)

    with ThreadPoolExecutor(3) as pool:
        racing = [pool.submit(redeliver) for _ in range(2)]
        for _ in range(10):
            place.services.delivery.send_due(patience=0.2)
        receiver.status = 204
        stop.set()
        for one in racing:
            one.result(20)
    until(lambda: place.send() or not deliveries(place, state="pending"), "all ended")
    numbers = place.rows("SELECT delivery_id, array_agg(number ORDER BY number) AS n FROM attempts GROUP BY 1")
    assert all(row["n"] == list(range(1, len(row["n"]) + 1)) for row in numbers), "each attempt counted once"
    assert len(receiver.got) == sum(len(row["n"]) for row in numbers), "and each was made once"


def test_a_redelivery_passes_an_open_circuit(place, receiver):
    place.services.endpoints.create(place.project, EndpointForm(url=silent(place)))
    events(place, 12)
    place.send()
    (row,) = place.rows("SELECT quiet_until FROM receivers WHERE failing > 0")
    assert row["quiet_until"] > place.now()
    made = place.scalar("SELECT count(*) FROM attempts")
    chosen = deliveries(place)[0]
    place.services.deliveries.redeliver(place.project, chosen.id)
    place.send()
    assert place.scalar("SELECT count(*) FROM attempts") == made + 1
    assert place.scalar("SELECT count(*) FROM attempts WHERE delivery_id = :id", id=chosen.id) >= 1


def test_a_lapsed_lease_is_no_attempt(place, receiver):
    endpoint(place, receiver)
    events(place, 1)
    with place.services.database.transaction() as tx:
        claimed = sending.claim(tx, limit=10, late=10)
    assert len(claimed.outgoing) == 1
    assert place.send() == 0
    place.services.database.ahead += sending.LEASE
    assert place.send() == 1
    assert [a["number"] for a in attempts(place)] == [1]


def test_what_ended_long_ago_is_forgotten_and_not_recovered(place, receiver):
    it = endpoint(place, receiver)
    since = place.now()
    events(place, 3)
    place.send()
    receiver.status = 500
    events(place, 1, "open")
    place.send()
    place.change("UPDATE deliveries SET due_at = due_at + interval '40 days' WHERE state = 'pending'")
    place.services.database.ahead += timedelta(days=31)
    place.services.upkeep.sweep()
    assert [d.state for d in deliveries(place)] == ["pending"]
    assert place.scalar("SELECT count(*) FROM attempts") == 1
    assert place.services.endpoints.recover(place.project, it, since).count == 0


def test_the_hot_statements_read_by_index(place, receiver):
    """With many rows a scan would be cheap to plan and dear to run: the claim and the record must not."""
    endpoint(place, receiver)
    ids = events(place, 1)
    place.change(
        "INSERT INTO events (id, project_id, type, at, body) SELECT gen_random_uuid(), :p, 'ping', now(), 'x' FROM generate_series(1, 30000)",
        p=place.project,
    )
    place.change(
        "INSERT INTO deliveries (id, project_id, event_id, receiver_id, type, url, state, created_at)"
        " SELECT e.id, e.project_id, e.id, (SELECT id FROM receivers LIMIT 1), e.type, 'x', 'delivered', now() FROM events e WHERE e.type = 'ping'"
    )
    with place.services.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE"))
    now, tuned = place.now(), place.services.delivery._database
    with tuned.transaction() as tx:
        common = {
            "now": now,
            "receivers": [1],
            "n": 100,
            "late": 100,
            "lease_until": now,
            "opens": 5,
            "burst": 0.25,
            "crowd": 1,
            "ahead": timedelta(0),
        }
        ahead = common["ahead"]
        record = {"rows": "[]", "ids": ids * 50, "receivers": [1], "ahead": ahead}
        for statement, values in (
            (sending._LOCK, {"ahead": ahead}),
            (sending._CLAIM, common),
            (sending._RECORD, record),
        ):
            plan = "\n".join(row[0] for row in tx.execute(text("EXPLAIN " + statement), values))
            tables = "deliveries", "events", "signing_secrets", "endpoints", "receivers"
            assert not [table for table in tables if f"Seq Scan on {table}" in plan], plan
            assert "Bitmap" not in plan, plan
            assert "deliveries_due" in plan or statement is sending._RECORD, plan


def test_a_claim_says_whether_a_landing_makes_room_for_more(place, receiver):
    endpoint(place, receiver)

    def claim():
        with place.services.database.transaction() as tx:
            return sending.claim(tx, limit=100, late=100)

    assert claim() == sending.Claimed([], None, more=False, at=None)
    events(place, 2)
    few = claim()
    assert len(few.outgoing) == 2
    assert not few.more
    events(place, 4, "more")
    filled = claim()
    assert len(filled.outgoing) == 2, "of four at once"
    assert filled.more
    left = claim()
    assert not left.outgoing
    assert left.more, "another worker's landing makes room, too"
    assert left.again == sending.CROWDED
    place.services.database.ahead += sending.LEASE
    assert len(claim().outgoing) == 4
    place.services.database.ahead += sending.LEASE
    place.change("UPDATE receivers SET quiet_until = :at", at=place.now() + timedelta(seconds=300))
    place.change("UPDATE deliveries SET lane = 2")
    held = claim()
    assert not held.outgoing
    assert not held.more, "time makes room for these, and no landing"
    assert held.again == pytest.approx(300, abs=1)


def test_an_event_waits_for_no_endpoint_that_does_not_want_it(place, receiver):
    """Endpoints are held while an event is stored, for the sake of its deliveries: those of others may be held by anybody."""
    wants = endpoint(place, receiver, "/a", tags=["a"])
    others = [
        endpoint(place, receiver, "/b", tags=["b"]),
        endpoint(place, receiver, "/c", events=["generation.queued"]),
        endpoint(place, receiver, "/d"),
    ]
    place.change("UPDATE endpoints SET providers = ARRAY['another'] WHERE id = :id", id=others[-1])
    with place.services.database.transaction() as tx:
        tx.execute(text("SELECT FROM endpoints WHERE id = ANY (:ids) FOR UPDATE"), {"ids": others})
        events(place, 1, tags=["a"])
    assert [d.endpoint_id for d in deliveries(place)] == [wants]


def test_a_look_is_bounded_however_much_was_delivered(place, receiver, monkeypatch):
    monkeypatch.setattr("tracker.services.recovery.LOOKED_AT", 3)
    it = endpoint(place, receiver, schedule=[0])
    begun = place.now()
    events(place, 10, "fine")
    place.send()
    receiver.status = 500
    events(place, 1, "lost")
    place.send()
    receiver.status = 200
    assert [d.state for d in deliveries(place, endpoint_id=it)].count("failed") == 1
    first = place.services.endpoints.recover(place.project, it, begun)
    assert (first.count, first.complete) == (0, False), "ten were delivered: the first look finds nothing, and goes on"
    turns = 0
    while place.scalar("SELECT count(*) FROM receivers WHERE replay_after IS NOT NULL"):
        place.services.upkeep.tick()
        turns += 1
        assert turns < 20, "each look moves on, also past what needs nothing"
    place.send()
    assert {d.state for d in deliveries(place, endpoint_id=it)} == {"delivered"}
