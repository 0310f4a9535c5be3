"""Two who write at once: cancel against record, crossing answers, doubled and lost messages, and the order of events."""

from __future__ import annotations

import json
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tracker import wiring
from tracker.core import ids
from tracker.errors import ConflictError, NotFoundError
from tracker.services.forms import CredentialForm, EndpointForm, GenerationChange
from tracker.services.polling import UnderWay
from tracker.store import flights
from tracker.store.batches import Asked
from tracker.store.db import Database

from .conftest import Place, Relay, bundle, until


def _stream(place: Place) -> list[Any]:
    found, after = [], None
    while page := place.services.feed.page(place.project, after, 7):
        found += page
        after = page[-1].cursor
    return found


def test_cancelled_while_the_answer_is_under_way_the_paid_result_stays_findable(place: Place, relay: Relay) -> None:
    task = relay.create(age=100, duration=1, misbehaviour="slow_0.5s")
    g = place.register(task, download=True)
    claims = place.claim()
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(place.ask, claims)
        until(lambda: relay.asked(task), "the provider is asked")
        place.services.generations.cancel(place.project, g.id)
        assert answer.result() == 1
    after = place.get(g)
    assert (after.state, after.outputs, after.artifacts) == ("cancelled", (), ())
    assert place.types(g) == ["registered", "cancelled"]
    detail = place.services.generations.transitions(place.project, g.id)[-1].detail
    assert detail["by"] == "its owner"
    assert detail["answer_after"]["outputs"][0]["url"].endswith("video.mp4")


def test_what_cancelling_answers_is_what_reading_gives(place: Place, relay: Relay) -> None:
    """It is put together, and not read again: with all that the schedule knew of it."""
    g = place.register(relay.create(age=100, duration=1000, misbehaviour="http500"))
    place.poll()
    cancelled = place.services.generations.cancel(place.project, g.id)
    assert cancelled.last_problem is not None
    assert cancelled.polls == 1
    assert cancelled.last_polled_at is not None
    assert cancelled == place.get(g)


def test_a_batch_makes_room_for_others_before_its_slowest_answer(place: Place, relay: Relay) -> None:
    def in_flight() -> int:
        return int(place.scalar("SELECT coalesce(sum(asks), 0) FROM flights"))

    for n in range(5):
        place.register(relay.create(age=100, duration=1000, misbehaviour="slow_1.5s" if n == 0 else ""))
    place.change("UPDATE credentials SET batch_size = 1")
    claims = place.claim()
    batch = claims[0][0]
    assert (len(claims), in_flight()) == (1, 5)
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(place.ask, claims)

        def roomy() -> bool:
            place.services.polling.make_room(batch)
            return in_flight() == 1

        until(roomy, "four are answered")
        assert not answer.done()
        assert answer.result() == 5
    assert in_flight() == 0
    place.services.polling.make_room(batch)  # late: it has landed


def test_a_batch_that_was_left_to_itself_goes_on_making_room(place: Place, relay: Relay) -> None:
    for fault in ("slow_0.3s", "slow_0.3s", "slow_1s", "slow_3s"):
        place.register(relay.create(age=100, duration=1000, misbehaviour=fault))
    place.change("UPDATE credentials SET batch_size = 1")
    claims = place.claim()
    seen: list[int] = []

    def in_flight() -> int:
        seen.append(int(place.scalar("SELECT coalesce(sum(asks), 0) FROM flights")))
        return seen[-1]

    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(place.ask, claims)
        until(lambda: in_flight() == 1, "only the slowest is counted")
        assert not answer.done()
        assert answer.result() == 4
    assert sorted(set(seen), reverse=True) == [4, 2, 1]


def test_of_many_budgets_hear_when_half_are_answered() -> None:
    under_way = UnderWay([Asked(*[key, "luma", 7 + key % 2, *[None] * 22]) for key in range(400)], {7: 200, 8: 4})

    def answered(of_seven: int, of_eight: int = 0) -> dict[int, int]:
        for parity, count in ((0, of_seven), (1, of_eight)):
            own = [key for key, a in under_way.left.items() if a.id % 2 == parity]
            for key in own[:count]:
                del under_way.left[key]
        return dict(under_way.lightened())

    assert answered(0) == answered(99, 99) == {}, "eight's four requests were about fifty each"
    assert answered(1) == {7: 100, 8: 101}
    assert answered(1) == {7: 99, 8: 101}, "of a few, each counts"
    assert answered(0, 98) == {7: 99, 8: 3}
    assert answered(99) == {8: 3}
    assert answered(0, 3) == {}, "nothing is left: it lands as a whole"


def test_an_account_that_has_answered_does_not_look_slow_because_of_another(place: Place, relay: Relay) -> None:
    place.services.credentials.put(
        place.project, "other", CredentialForm(providers=["luma"], base_url=relay.url, api_key="x")
    )
    place.register(relay.create(age=100, duration=1000, misbehaviour="slow_3s"))
    place.register(relay.create(age=100, duration=1000, misbehaviour="slow_0.8s"), credential="other")
    claims = place.claim()
    assert len(claims) == 1

    def in_flight() -> list[str]:
        query = "SELECT c.name FROM flights f JOIN credentials c ON c.id = f.credential_id ORDER BY 1"
        return [row["name"] for row in place.rows(query)]

    assert in_flight() == ["default", "other"]
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(place.ask, claims)
        until(lambda: in_flight() == ["default"], "the quicker one has landed")
        assert not answer.done()
        assert answer.result() == 2
    assert in_flight() == []


def test_the_record_was_faster_than_the_cancel(place: Place, relay: Relay) -> None:
    g = place.register(relay.create(age=100, duration=1))
    place.poll()
    try:
        place.services.generations.cancel(place.project, g.id)
        raise AssertionError("a completed one was cancelled")
    except ConflictError:
        assert place.get(g).state == "completed"


def test_a_doubled_message_changes_nothing(place: Place, relay: Relay) -> None:
    g = place.register(relay.create(age=100, duration=1), webhook_url="http://127.0.0.1:9/x")
    claims = place.claim()
    place.ask(claims)
    once = place.get(g)
    place.ask(claims)
    assert place.get(g) == once
    assert place.types(g) == ["registered", "completed"]
    assert place.scalar("SELECT count(*) FROM deliveries") == 1


def test_doubled_messages_at_the_same_moment(place: Place, relay: Relay) -> None:
    made = [place.register(relay.create(age=100, duration=1), webhook_url="http://127.0.0.1:9/x") for _ in range(40)]
    claims = place.claim()
    shuffled = [(batch, random.sample(polls, len(polls))) for batch, polls in claims]
    other = _another_worker(place)
    with ThreadPoolExecutor(2) as threads:
        runs = [threads.submit(place.ask, claims), threads.submit(_ask, other, shuffled)]
        for run in runs:
            run.result()
    other.close()
    assert {tuple(place.types(g)) for g in made} == {("registered", "completed")}
    assert place.scalar("SELECT count(*) FROM deliveries") == 40


def _another_worker(place: Place) -> Any:
    return wiring.build(place.services.settings)


def _ask(worker: Any, claims: Any) -> None:
    for batch, polls in claims:
        worker.polling.ask(batch, bundle(polls))


def test_two_answers_cross_and_the_older_one_moves_nothing_back(place: Place, relay: Relay) -> None:
    relay.says("t", "pending")
    g = place.register("t")
    old = place.claim()
    late: list[Any] = []
    # The first answer is read but not recorded before a second question is asked and recorded.
    recording = place.services.polling._recording
    record = recording.record
    try:
        recording.record = lambda *observed: late.append(observed)  # type: ignore[method-assign, assignment]
        place.ask(old)
    finally:
        recording.record = record  # type: ignore[method-assign]
    relay.says("t", "processing")
    place.ahead(30)
    assert place.poll() == 1
    for observed in late:
        recording.record(*observed)
    assert late
    assert place.get(g).state == "processing"
    assert place.types(g) == ["registered", "processing"]


def test_a_lost_message_costs_one_late_poll(place: Place, relay: Relay) -> None:
    relay.says("t", "processing")
    g = place.register("t")
    assert len(place.claim()) == 1, "and this message is lost"
    place.run(61)
    assert place.get(g).state == "processing"


def test_what_could_not_be_published_is_due_again_at_once(place: Place, relay: Relay) -> None:
    for n in range(30):
        relay.says(f"t{n}", "processing")
        place.register(f"t{n}")
    place.change("UPDATE credentials SET batch_size = 1, requests_per_second = 40, tokens = 10, refilled_at = now()")
    closed = place.services.settings.changed(broker_url=SecretStr("redis://127.0.0.1:1/0"))
    deaf = wiring.build(closed)
    assert deaf.polling.dispatch() == 0
    assert deaf.bell.mute
    before = place.rows("SELECT * FROM credentials")
    assert deaf.polling.dispatch() == 0
    assert place.rows("SELECT * FROM credentials") == before, "nothing is claimed while the broker is known to be away"
    deaf.close()
    assert place.scalar("SELECT tokens FROM credentials") >= 10
    assert place.rows("SELECT * FROM flights") == []
    assert place.rows("SELECT DISTINCT fence, asked_at FROM polls") == [{"fence": 0, "asked_at": None}]
    assert place.poll() >= 10


def test_a_batch_that_a_worker_took_after_all_is_not_withdrawn(place: Place, relay: Relay) -> None:
    relay.says("t", "processing")
    place.register("t")
    ((batch, polls),) = place.claim()
    with place.services.database.transaction() as tx:
        assert flights.launch(tx, batch, place.now())
        assert not flights.withdraw(tx, batch)
    assert place.scalar("SELECT count(*) FROM flights") == len(polls)


def test_what_cannot_be_recorded_costs_the_others_of_its_batch_seconds_only(place: Place, relay: Relay) -> None:
    relay.says("bad", "processing")
    place.register("bad")
    for _ in range(3):
        place.register(relay.create(age=100, duration=1000, misbehaviour="slow_1.5s"))
    place.change("UPDATE credentials SET batch_size = 1")
    place.change("UPDATE polls SET lane = 1")
    place.change(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no such luck'; END $$"
    )
    place.change(
        "CREATE TRIGGER refused BEFORE UPDATE ON generations FOR EACH ROW WHEN (OLD.task_id = 'bad') EXECUTE FUNCTION refuse()"
    )
    claims = place.claim()
    with pytest.raises(DBAPIError, match="no such luck") as caught:
        place.ask(claims)
    assert place.scalar("SELECT count(*) FROM flights") == 0
    rows = place.rows(
        "SELECT g.task_id = 'bad' AS bad, p.due_at, p.asked_at FROM polls p JOIN generations g ON g.id = p.generation_id"
    )
    assert {(row["bad"], row["asked_at"] is None) for row in rows} == {(True, False), (False, True)}
    waits = [(row["due_at"] - place.now()).total_seconds() for row in rows if not row["bad"]]
    assert 3 < min(waits) <= max(waits) <= 5, "soon, and not at once: it may go wrong again"
    place.change("DROP TRIGGER refused ON generations")
    place.ahead(5)
    assert place.poll() == 3, f"this thread can ask again, though somebody still looks at {caught.value}"


def test_a_stopped_queue_is_not_watched(place: Place) -> None:
    place.services.health.stop("polls", "maintenance")
    place.register("t")
    began = time.monotonic()
    assert place.services.polling.dispatch(stay=20) == 0
    assert time.monotonic() - began < 5


def test_a_claim_that_was_fenced_out_is_not_asked(place: Place, relay: Relay) -> None:
    task = relay.create(misbehaviour="neverends")
    place.register(task)
    late = place.claim()
    place.ahead(61)
    fresh = place.claim()
    assert [fence for _, polls in fresh for _, fence in polls] == [2]
    assert place.ask(late) == 0
    assert place.ask(fresh) == 1


def test_a_deleted_generation_is_forgotten_by_its_answer(place: Place, relay: Relay) -> None:
    g = place.register(relay.create(age=100, duration=1))
    claims = place.claim()
    place.services.generations.delete(place.project, g.id)
    place.ask(claims)
    assert place.scalar("SELECT count(*) FROM events") == 0
    for gone in (
        place.services.generations.get,
        place.services.generations.cancel,
        place.services.generations.transitions,
    ):
        try:
            gone(place.project, g.id)
            raise AssertionError("it is still there")
        except NotFoundError:
            continue


def test_version_grows_with_events_and_outputs_not_with_polls(place: Place, relay: Relay) -> None:
    relay.says("t", "processing", progress=0.1)
    g = place.register("t")
    place.poll()
    one = place.get(g)
    assert one.version == 2
    relay.says("t", "processing", progress=0.6)
    place.run(70)
    two = place.get(g)
    assert two.polls > one.polls
    assert two.progress == 0.6
    assert two.version == 2
    same = GenerationChange(tags=[])
    assert place.services.generations.edit(place.project, g.id, same).version == 2, "nothing was changed"
    assert place.services.generations.edit(place.project, g.id, GenerationChange(tags=["new"])).version == 3
    place.ahead(30)
    relay.completes("t")
    place.run(70)
    assert place.get(g).version == 4


def test_an_event_is_the_generation_as_of_its_commit(place: Place, relay: Relay) -> None:
    place.services.endpoints.create(place.project, EndpointForm(url="http://127.0.0.1:9/x"))
    g = place.register(relay.create(age=100, duration=1), metadata={"order": 7})
    place.poll()
    (entry,) = _stream(place)
    body = json.loads(entry.body)
    assert body["type"] == "generation.completed"
    assert body["data"]["id"] == ids.public("gen", g.id)
    assert (body["data"]["sequence"], body["data"]["previous_state"]) == (2, "registered")
    assert body["data"]["version"] == place.get(g).version
    assert body["data"]["metadata"] == {"order": 7}
    assert body["data"]["next_poll_at"] is None
    assert place.scalar("SELECT body FROM events WHERE sequence = 2") == entry.body


def test_steering_a_generation(place: Place, relay: Relay) -> None:
    generations = place.services.generations
    relay.says("t", "failed", failure_reason="no")
    g = place.register("t")
    place.poll()
    assert place.get(g).state == "failed"
    relay.says("t", "processing")
    tracked = generations.retrack(place.project, g.id)
    assert (tracked.state, tracked.error, tracked.finished_at) == ("registered", None, None)
    assert tracked.timeout_at > g.timeout_at
    place.poll()
    assert place.types(g) == ["registered", "failed", "registered", "processing"]
    assert place.scalar("SELECT count(*) FROM deliveries") == 0
    assert generations.poll(place.project, g.id).next_poll_at <= place.now()  # type: ignore[operator]
    assert place.poll() == 1
    assert generations.cancel(place.project, g.id).state == "cancelled"
    assert generations.cancel(place.project, g.id).version == generations.get(place.project, g.id).version
    for refused in (
        lambda: generations.poll(place.project, g.id),
        lambda: generations.download(place.project, g.id, None),
    ):
        try:
            refused()
            raise AssertionError("a cancelled one was steered")
        except ConflictError:
            continue


def test_a_longer_timeout_keeps_the_time_that_did_not_count(place: Place, relay: Relay) -> None:
    relay.says("t", "failed", failure_reason="no")
    g = place.register("t", timeout=3600)
    place.poll()
    relay.says("t", "processing")
    place.ahead(3 * 24 * 3600)
    tracked = place.services.generations.retrack(place.project, g.id)
    longer = place.services.generations.edit(place.project, g.id, GenerationChange.model_validate({"timeout": 7200}))
    assert longer.timeout_at == tracked.timeout_at + timedelta(hours=1)
    place.poll()
    assert place.get(g).state == "processing"


def test_nothing_is_tracked_again_with_an_account_that_is_deleted(place: Place, relay: Relay) -> None:
    g = place.register("t")
    place.services.credentials.delete(place.project, "default", force=True)
    with pytest.raises(ConflictError, match="deleted; PUT /v1/credentials/default"):
        place.services.generations.retrack(place.project, g.id)
    assert place.get(g).state == "failed"
    place.services.credentials.put(
        place.project, "default", CredentialForm(providers=["luma"], base_url=relay.url, api_key="k")
    )
    assert place.services.generations.retrack(place.project, g.id).state == "registered"


def test_a_changed_timeout_and_account_reach_the_schedule(place: Place, relay: Relay) -> None:
    place.services.credentials.put(
        place.project, "other", CredentialForm(providers=["luma"], base_url=relay.url, api_key="x")
    )
    relay.says("t", "processing")
    g = place.register("t")
    place.poll()
    place.ahead(60)
    changed = place.services.generations.edit(place.project, g.id, GenerationChange.model_validate({"timeout": 30}))
    assert changed.timeout_at == g.registered_at + timedelta(seconds=30)
    place.run(1)
    assert place.get(g).state == "timed_out"
    moved = place.services.generations.edit(place.project, g.id, GenerationChange(credential="other"))
    assert moved.credential == "other"
    assert place.rows("SELECT c.name FROM polls p JOIN credentials c ON c.id = p.credential_id") == [{"name": "other"}]


def test_the_stream_never_skips_what_commits_late(place: Place) -> None:
    """Writers commit in another order than they began; a reader that follows the cursor sees every event once."""
    made: list[UUID] = []
    stop = threading.Event()

    def writer(seed: int) -> None:
        database, dice = Database(place.services.settings.required("database_url"), size=1), random.Random(seed)
        for _ in range(25):
            with database.transaction() as tx:
                for _ in range(dice.randint(1, 3)):
                    row = tx.execute(
                        text(
                            "INSERT INTO events (id, project_id, type, at, body) VALUES (gen_random_uuid(), :p, 'ping', now(), '{}') RETURNING id"
                        ),
                        {"p": place.project},
                    ).scalar_one()
                    made.append(row)
                stop.wait(dice.uniform(0, 0.02))
        database.close()

    seen: list[UUID] = []

    def reader() -> None:
        after = None
        while True:
            last = stop.is_set()
            page = place.services.feed.page(place.project, after, 5)
            seen.extend(entry.id for entry in page)
            if page:
                after = page[-1].cursor
            elif last:
                return

    with ThreadPoolExecutor(5) as threads:
        writers = [threads.submit(writer, seed) for seed in range(4)]
        following = threads.submit(reader)
        for run in writers:
            run.result()
        stop.set()
        following.result()
    assert len(seen) == len(set(seen)) == len(made)
    assert set(seen) == set(made)


def test_many_threads_on_the_same_generations_never_deadlock(  # noqa: C901, PLR0915 - eight kinds of work side by side
    place: Place, relay: Relay
) -> None:
    """Registering, polling, cancelling, retracking, pausing, folding and reading at once; nothing may raise but a refusal."""
    services, ends = place.services, threading.Event()
    tasks = [relay.create(queue=0.5, duration=2) for _ in range(25)] + [
        relay.create(misbehaviour="quota403_2x", queue=0.5, duration=2) for _ in range(5)
    ]
    endpoint = services.endpoints.create(place.project, EndpointForm(url="http://127.0.0.1:9/x"))
    made = [place.register(task, tags=["stress"]) for task in tasks]
    failures: list[BaseException] = []

    def keeps(work: Any, seed: int) -> None:
        dice = random.Random(seed)
        while not ends.is_set():
            try:
                work(dice)
            except (ConflictError, NotFoundError):
                continue
            except BaseException as wrong:  # noqa: BLE001 - whatever it is fails the test
                failures.append(wrong)
                ends.set()

    doubled = threading.Lock()

    def polls(worker: Any) -> Any:
        def work(dice: random.Random) -> None:
            with doubled:
                claims = place.claim()
            for batch, found in claims:
                worker.polling.ask(batch, bundle(dice.sample(found, len(found))))

        return work

    def steers(dice: random.Random) -> None:
        g = dice.choice(made)
        dice.choice([services.generations.cancel, services.generations.retrack, services.generations.poll])(
            place.project, g.id
        )

    def edits(dice: random.Random) -> None:
        services.generations.edit(place.project, dice.choice(made).id, GenerationChange(metadata={"n": dice.random()}))
        services.registration.register_many(place.project, [])

    def upkeep(dice: random.Random) -> None:
        services.upkeep.fold_clocks()
        services.credentials.resume(place.project, "default")
        with services.database.transaction() as tx:
            from tracker.store import db, schedule

            schedule.extend_deadlines(tx, timedelta(seconds=1), db.now(tx))

    def receives(dice: random.Random) -> None:
        token = services.credentials.get(place.project, "default").callback_token
        services.credentials.callback("luma", token, json.dumps(dice.sample(tasks, 5)).encode())
        services.endpoints.recover(place.project, endpoint.id, made[0].registered_at)

    workers = [_another_worker(place) for _ in range(2)]
    works = [polls(services), polls(workers[0]), polls(workers[1]), steers, steers, edits, upkeep, receives]
    with ThreadPoolExecutor(len(works)) as threads:
        runs = [threads.submit(keeps, work, seed) for seed, work in enumerate(works)]
        ends.wait(8)
        ends.set()
        for run in runs:
            run.result()
    for worker in workers:
        worker.close()
    assert failures == []
    for g in made:
        numbers = [
            row["sequence"]
            for row in place.rows("SELECT sequence FROM events WHERE generation_id = :id ORDER BY sequence", id=g.id)
        ]
        assert numbers == list(range(1, len(numbers) + 1)), "counted from 1 without gaps"
        times = [
            row["at"]
            for row in place.rows("SELECT at FROM events WHERE generation_id = :id ORDER BY sequence", id=g.id)
        ]
        assert times == sorted(times), "and never back in time"
        assert place.get(g).sequence == len(numbers)
