"""Many ids in one request: both answer shapes, ids left out, relays without the path, and a budget that holds through all of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from tracker.services import asking
from tracker.services.forms import CredentialForm
from tracker.store.flights import BURST

from .conftest import Place, Relay, until

COUNT = 60
MINUTE = 60.0


def _paths(relay: Relay) -> dict[str, int]:
    found: dict[str, int] = relay.call("stats")["paths"]
    return {path.rpartition(" ")[2]: count for path, count in found.items()}


def _pending(place: Place, relay: Relay, **wish: Any) -> list[str]:
    tasks: list[str] = relay.call("generations", {"count": COUNT, "queue": 0, "duration": 3000, **wish})["ids"]
    for task in tasks:
        place.register(task)
    return tasks


def _asked_each(relay: Relay, tasks: list[str]) -> set[int]:
    return {len(relay.asked(task)) for task in tasks}


@pytest.mark.parametrize("shape", ["array", "envelope"])
def test_sixty_pending_take_two_requests(place: Place, relay: Relay, shape: str) -> None:
    relay.call("faults", {"batch": shape})
    tasks = _pending(place, relay)
    before = relay.call("stats")["requests"]
    assert place.poll() == COUNT
    assert relay.call("stats")["requests"] - before == 2
    assert _asked_each(relay, tasks) == {1}
    states = place.rows("SELECT state, count(*) FROM generations GROUP BY 1")
    assert [(row["state"], row["count"]) for row in states] == [("processing", COUNT)]


def test_a_batch_answer_keeps_the_body_of_each_task(place: Place, relay: Relay) -> None:
    tasks: list[str] = relay.call("generations", {"count": 2, "queue": 0, "duration": 0.001})["ids"]
    held = [place.register(task) for task in tasks]
    place.ahead(1)
    place.poll()
    for g in held:
        body = place.services.generations.answer(place.project, g.id)
        assert body is not None
        assert g.task_id.encode() in body
        assert place.get(g).state == "completed"


def test_a_relay_without_the_path_is_remembered_and_asked_singly(place: Place, relay: Relay) -> None:
    relay.call("faults", {"batch": "none"})
    tasks = _pending(place, relay)
    place.poll()
    assert _asked_each(relay, tasks) == {0}, "asking all singly at once would have broken the budget"
    assert place.scalar("SELECT count(*) FROM polls WHERE due_at <= now()") == COUNT, "so they are due again at once"
    place.poll()
    assert _asked_each(relay, tasks) == {1}
    assert place.scalar("SELECT batch_size FROM credentials") == 1
    assert place.rows("SELECT DISTINCT fence FROM polls") == [{"fence": 1}], "a claim that asked nobody is no poll"
    before = relay.call("stats")["requests"]
    place.ahead(60)
    assert place.poll() == COUNT
    assert relay.call("stats")["requests"] - before == COUNT, "the path is not tried again"


def test_the_path_is_tried_again_a_day_later(place: Place, relay: Relay) -> None:
    relay.call("faults", {"batch": "none"})
    _pending(place, relay)
    place.poll()
    relay.call("faults", {"batch": "array"})
    place.ahead(timedelta(hours=23).total_seconds())
    place.services.upkeep.tick()
    assert place.scalar("SELECT batch_size FROM credentials") == 1
    place.ahead(timedelta(hours=1, minutes=1).total_seconds())
    place.services.upkeep.tick()
    assert place.scalar("SELECT batch_size FROM credentials") == 50


def test_an_id_missing_from_a_batch_is_asked_singly_and_charged(place: Place, relay: Relay) -> None:
    tasks = _pending(place, relay)
    odd = relay.create(queue=0, duration=3000, misbehaviour="http500")
    place.register(odd)
    tokens = place.scalar("SELECT tokens FROM credentials")
    place.poll()
    assert _asked_each(relay, tasks) == {1}
    assert len(relay.asked(odd)) >= 1
    assert place.scalar("SELECT problem_code FROM polls WHERE failures > 0") == "http_error"
    spent = tokens - place.scalar("SELECT tokens FROM credentials")
    assert spent >= 3, "two batches and the single question"


def test_what_a_batch_leaves_out_is_asked_before_the_slowest_has_answered(place: Place, relay: Relay) -> None:
    _pending(place, relay)
    place.register(relay.create(queue=0, duration=3000, misbehaviour="http500"))
    other = CredentialForm(providers=["luma"], base_url=relay.url, api_key="x")
    place.services.credentials.put(place.project, "other", other)
    place.register(relay.create(queue=0, duration=3000, misbehaviour="slow_3s"), credential="other")
    claims = place.claim()
    assert len(claims) == 1

    def in_flight() -> dict[str, int]:
        query = "SELECT c.name, f.asks FROM flights f JOIN credentials c ON c.id = f.credential_id"
        return {row["name"]: row["asks"] for row in place.rows(query)}

    assert in_flight() == {"default": 2, "other": 1}
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(place.ask, claims)
        known = "SELECT count(*) FROM polls WHERE problem_code = 'http_error'"
        until(lambda: place.scalar(known) == 1, "the single question is asked, answered and recorded")
        place.services.polling.make_room(claims[0][0])  # as the worker does that leaves a batch to itself
        until(lambda: in_flight() == {"other": 1}, "and its account is done")
        assert not answer.done()
        assert answer.result() == COUNT + 2


def test_what_follows_finds_room_beside_what_is_not_answered_yet(place: Place, relay: Relay) -> None:
    """Two may be in flight, of which one takes long: the two that a batch leaves out are asked one after the other."""
    _budget(place, rate=100, concurrency=2)
    for fault in ("http500", "http500", "slow_1.5s"):
        place.register(relay.create(queue=0, duration=3000, misbehaviour=fault))
    claims = place.claim()
    place.ask(claims)
    assert relay.call("stats")["most_in_flight"] <= 2
    assert place.scalar("SELECT count(*) FROM polls WHERE problem_code = 'http_error'") == 2


def test_what_cannot_be_paid_for_yet_waits_for_its_budget_and_not_for_the_slowest(place: Place, relay: Relay) -> None:
    _budget(place, rate=5, concurrency=10)
    for _ in range(5):
        place.register(relay.create(queue=0, duration=3000, misbehaviour="http500"))
    other = CredentialForm(providers=["luma"], base_url=relay.url, api_key="x")
    place.services.credentials.put(place.project, "other", other)
    place.register(relay.create(queue=0, duration=3000, misbehaviour="slow_3s"), credential="other")
    claims = place.claim()
    with ThreadPoolExecutor(1) as threads:
        answer = threads.submit(place.ask, claims)
        launched = until(lambda: place.scalar("SELECT max(until) FROM flights WHERE taken"), "it is under way")
        known = "SELECT count(*) FROM polls WHERE problem_code = 'http_error'"
        until(lambda: place.scalar(known) == 5, "all five single questions are asked, answered and recorded")
        assert not answer.done()
        assert place.scalar("SELECT max(until) FROM flights") == launched, "it looks no younger than it is"
        answer.result()
    assert place.scalar("SELECT tokens FROM credentials WHERE name = 'default'") >= -1


def test_what_finds_no_connection_in_time_is_due_again(
    place: Place, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a process may open few, a relay that hangs must not keep a batch beyond its lease."""
    monkeypatch.setattr(asking, "AT_ONCE", 1)
    monkeypatch.setattr(asking, "LAST_ASK", 0.3)
    place.change("UPDATE credentials SET batch_size = 1")
    tasks = [relay.create(queue=0, duration=3000, misbehaviour="slow_1.5s") for _ in range(3)]
    for task in tasks:
        place.register(task)
    place.poll()
    assert sorted(len(relay.asked(task)) for task in tasks) == [0, 0, 1]
    assert place.scalar("SELECT count(*) FROM polls WHERE due_at <= clock_timestamp()") == 2
    monkeypatch.undo()
    place.poll()
    assert sorted(len(relay.asked(task)) for task in tasks) == [1, 1, 1]


def test_a_batch_path_that_fails_where_single_questions_work_is_left(place: Place, relay: Relay) -> None:
    relay.call("answers", {"path": "/luma/tasks", "body": "<html>oops</html>", "status": 500})
    tasks = _pending(place, relay)
    place.poll()
    place.poll()
    assert place.scalar("SELECT batch_size FROM credentials") == 1
    assert _asked_each(relay, tasks) == {1}
    assert place.scalar("SELECT count(*) FROM polls WHERE failures > 0") == 0


@pytest.mark.parametrize("hiccup", [("<html>bad gateway</html>", 502), ("[]", 200)])
def test_one_bad_answer_costs_the_path_some_minutes_and_not_a_day(
    place: Place, relay: Relay, hiccup: tuple[str, int]
) -> None:
    tasks = _pending(place, relay)
    relay.call("answers", {"path": "/luma/tasks", "body": hiccup[0], "status": hiccup[1]})
    place.poll()
    assert place.scalar("SELECT batch_size FROM credentials") == 1
    relay.call("reset", {})
    for task in tasks:
        relay.says(task, "processing")
    place.ahead(4 * MINUTE)
    place.services.upkeep.tick()
    assert place.scalar("SELECT batch_size FROM credentials") == 1
    place.ahead(1.1 * MINUTE)
    place.services.upkeep.tick()
    assert place.scalar("SELECT batch_size FROM credentials") == 50


def _budget(place: Place, rate: float, concurrency: int) -> None:
    place.services.credentials.put(
        place.project, "default", CredentialForm(requests_per_second=rate, concurrency=concurrency)
    )


def test_single_questions_for_what_a_batch_leaves_out_keep_to_the_budget(place: Place, relay: Relay) -> None:
    """A relay that answers every batch with nothing, and knows none of the ids singly either."""
    relay.call("answers", {"path": "/luma/tasks", "body": "[]"})
    _budget(place, rate=20, concurrency=10)
    for n in range(300):
        relay.answers(f"unknown-{n}", "", status=404)
        place.register(f"unknown-{n}")
    made, seconds = [relay.call("stats")["requests"]], 10.0
    began, first = place.now(), 0.0
    while (place.now() - began).total_seconds() < seconds:
        place.poll()
        made.append(relay.call("stats")["requests"])
        first = first or (place.now() - began).total_seconds()
        place.ahead(0.2)
    took = (place.now() - began).total_seconds()
    assert made[1] - made[0] <= 20 * (BURST + first) + 2, "what was saved up, and one question that follows from it"
    assert made[-1] - made[0] <= 20 * (took + BURST) + 2
    assert relay.call("stats")["most_in_flight"] <= 10
    assert place.scalar("SELECT tokens FROM credentials") >= -1
    assert place.scalar("SELECT count(*) FROM polls WHERE problem_code = 'not_found'") > 50, (
        "and they are asked in turn"
    )


def test_a_slow_account_gets_its_single_questions_too(place: Place, relay: Relay) -> None:
    relay.call("answers", {"path": "/luma/tasks", "body": "[]"})
    _budget(place, rate=1, concurrency=1)
    for n in range(3):
        relay.answers(f"t{n}", "down", status=500)
        place.register(f"t{n}")
    place.run(2 * MINUTE)
    assert place.scalar("SELECT count(*) FROM polls WHERE problem_code = 'http_error'") == 3


def test_a_family_that_the_provider_does_not_know_costs_no_request_of_its_own(place: Place, relay: Relay) -> None:
    tasks: list[str] = relay.call("generations", {"count": 40, "queue": 0, "duration": 3000})["ids"]
    for n, task in enumerate(tasks):
        place.register(task, kind=f"kind-{n}")
    before = relay.call("stats")["requests"]
    assert place.poll() == 40
    assert relay.call("stats")["requests"] - before == 1
    assert _asked_each(relay, tasks) == {1}


def test_several_providers_behind_one_account_share_what_was_paid_for(place: Place, relay: Relay) -> None:
    """Should a claim have counted on one request for what takes two, one is made."""
    both = CredentialForm(providers=["luma", "luma-official"], base_url=relay.url, api_key="x", requests_per_second=2)
    place.services.credentials.put(place.project, "both", both)
    place.change("UPDATE credentials SET batch_size = 50, tokens = 1 WHERE name = 'both'")
    tasks: list[str] = relay.call("generations", {"count": 4, "queue": 0, "duration": 3000})["ids"]
    for n, task in enumerate(tasks):
        place.register(task, credential="both", provider="luma-official" if n < 2 else "luma")
    before = relay.call("stats")["requests"]
    place.poll()
    assert relay.call("stats")["requests"] - before == 1
    place.run(MINUTE)
    assert place.scalar("SELECT count(*) FROM polls WHERE asked_at IS NULL AND failures = 0") == 0, (
        "and nobody always comes last"
    )


def test_in_an_outage_a_batch_costs_two_requests_and_all_its_members_learn_of_it(place: Place, relay: Relay) -> None:
    tasks = _pending(place, relay)
    before = relay.call("stats")["requests"]
    relay.call("faults", {"outage": "http503"})
    place.poll()
    assert relay.call("stats")["requests"] - before == 4, "two batches, and one single question for each"
    assert place.scalar("SELECT count(*) FROM polls WHERE failures = 1") == COUNT
    assert place.scalar("SELECT batch_size FROM credentials") == 50, "an outage says nothing about the path"
    assert max(_asked_each(relay, tasks)) <= 1
