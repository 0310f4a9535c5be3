"""Contract section 3, sentence by sentence: claim, ask, decide and record against the simulator, under a clock that moves."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tracker.core.lifecycle import NEXT
from tracker.core.schedule import position
from tracker.services.forms import CredentialForm

from .conftest import Place, Relay

MINUTE, HOUR = 60.0, 3600.0
PATIENT = {"poll_price": 60.0, "poll_longest": 300.0}
"""Long gaps, for tests that live through hours."""


def test_a_life_from_registration_to_completion(place: Place, relay: Relay) -> None:
    task = relay.create(queue=20, duration=60)
    g = place.register(task)
    assert g.next_poll_at == g.registered_at, "the first poll is at once"
    place.run(10 * MINUTE)
    after = place.get(g)
    assert place.types(g) == ["registered", "queued", "processing", "completed"]
    assert after.state == "completed"
    assert after.progress == 1.0
    assert [output.kind for output in after.outputs] == ["video", "video_raw", "thumbnail", "last_frame"]
    assert after.finished_at is not None
    assert after.next_poll_at is None
    assert after.error is None
    assert after.polls == len(relay.asked(task)), "every question is counted, and none after the end"
    moves = place.services.generations.transitions(place.project, g.id)
    assert [move.sequence for move in moves] == [1, 2, 3, 4]
    assert all(move.to_state in NEXT[move.from_state] for move in moves[1:])
    assert [move.at for move in moves] == sorted(move.at for move in moves)


def test_a_fresh_submit_is_not_asked_about_at_once(place: Place, relay: Relay) -> None:
    fresh = place.register(relay.create(duration=60), submitted_at=place.now() - timedelta(seconds=3))
    old = place.register(relay.create(duration=60), submitted_at=place.now() - timedelta(seconds=11))
    assert old.next_poll_at == old.registered_at
    assert fresh.next_poll_at is not None
    assert 1 < (fresh.next_poll_at - fresh.registered_at).total_seconds() <= 60
    assert place.poll() == 1
    assert place.get(fresh).polls == 0


def test_back_to_queued_is_kept_in_provider_status_alone(place: Place, relay: Relay) -> None:
    task = "task-1"
    relay.says(task, "processing")
    g = place.register(task)
    place.poll()
    relay.says(task, "pending")
    place.run(2 * MINUTE)
    after = place.get(g)
    assert (after.state, after.provider_status) == ("processing", "pending")
    assert place.types(g) == ["registered", "processing"]


PROBLEMS = {
    "unknown word": ({"body": '{"id": "t", "state": "reticulating"}'}, "unknown_status"),
    "missing": ({"body": '{"message": "task not found"}', "status": 404}, "not_found"),
    "server error": ({"body": "oops", "status": 500}, "http_error"),
    "not JSON": ({"body": "<html>busy</html>"}, "unreadable"),
    "truncated": ({"body": '{"id": "t", "sta'}, "unreadable"),
    "completed without URL": ({"body": '{"id": "t", "state": "completed"}'}, "no_output"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_failed_observation_is_never_a_state(place: Place, relay: Relay, name: str) -> None:
    answer, code = PROBLEMS[name]
    relay.answers("t", **answer)
    g = place.register("t")
    place.run(9 * MINUTE)
    after = place.get(g)
    assert after.state == "registered"
    assert place.types(g) == ["registered"]
    assert after.last_problem is not None
    assert after.last_problem.code == code
    assert after.last_problem.in_a_row == after.polls > 8
    relay.completes("t")
    place.run(2 * MINUTE)
    done = place.get(g)
    assert done.state == "completed"


def test_silence_is_a_failed_observation(place: Place, relay: Relay) -> None:
    g = place.register(relay.create(misbehaviour="reset", duration=60))
    place.poll()
    after = place.get(g)
    assert after.state == "registered"
    assert after.last_problem is not None
    assert after.last_problem.code in {"connection", "unreadable"}


def test_waits_after_failures_double_up_to_the_longest(place: Place, relay: Relay) -> None:
    relay.answers("t", "oops", status=500)
    place.register("t")
    waits = []
    for _ in range(8):
        place.run(0.5)
        row = place.rows("SELECT due_at FROM polls")[0]
        waits.append((row["due_at"] - place.now()).total_seconds() + 0.5)
        place.ahead(max(0.0, waits[-1] - 0.4))
    for number, wait in enumerate(waits):
        expected = min(60.0, 2.0 * 2**number)
        assert 0.75 * expected - 0.7 <= wait <= 1.25 * expected + 0.7, waits


@pytest.mark.parametrize(("asked", "honoured"), [(600, 600), (20_000, 3600)])
def test_retry_after_wins_up_to_an_hour(place: Place, relay: Relay, asked: int, honoured: int) -> None:
    relay.answers("t", "later", status=503, headers={"Retry-After": str(asked)})
    g = place.register("t")
    place.poll()
    next_poll = place.get(g).next_poll_at
    assert next_poll is not None
    assert honoured - 2 <= (next_poll - place.now()).total_seconds() <= min(honoured * 1.1, HOUR)


def test_who_were_told_to_come_back_together_do_not(place: Place, relay: Relay) -> None:
    for n in range(20):
        relay.answers(f"t{n}", "later", status=503, headers={"Retry-After": "600"})
        place.register(f"t{n}")
    asked_at = place.now()
    place.poll()
    waits = [(row["due_at"] - asked_at).total_seconds() for row in place.rows("SELECT due_at FROM polls")]
    assert 600 <= min(waits) < 630
    assert max(waits) - min(waits) > 20


def test_too_many_requests_blocks_the_account(place: Place, relay: Relay) -> None:
    relay.answers("t", "slow down", status=429, headers={"Retry-After": "300"})
    place.register("t")
    place.poll()
    other = place.register("other")
    assert place.poll() == 0, "the whole account waits"
    place.ahead(301)
    place.poll()
    assert place.get(other).polls == 1


def test_not_found_ends_only_after_ten_minutes_and_five_in_a_row(place: Place, relay: Relay) -> None:
    g = place.register("nowhere")
    place.run(9.9 * MINUTE)
    before = place.get(g)
    assert before.state == "registered"
    assert before.last_problem is not None
    assert before.last_problem.in_a_row >= 5
    place.run(3 * MINUTE)
    after = place.get(g)
    assert after.state == "failed"
    assert after.error is not None
    assert after.error.code == "not_found"
    assert after.last_problem is not None
    assert after.last_problem.in_a_row == after.polls, "the answer that ended it is counted, too"
    assert after.next_poll_at is None


def test_what_was_seen_once_is_never_ended_by_not_found(place: Place, relay: Relay) -> None:
    relay.says("t", "pending")
    g = place.register("t", timeout=4 * HOUR, **PATIENT)
    place.poll()
    relay.answers("t", '{"message": "task not found"}', status=404)
    place.run(HOUR)
    assert place.get(g).state == "queued"


def test_when_most_are_missing_it_is_an_outage(place: Place, relay: Relay) -> None:
    lost = [place.register(f"lost-{i}", **PATIENT) for i in range(3)]
    relay.says("there", "processing")
    place.register("there", **PATIENT)
    place.run(20 * MINUTE)
    assert {place.get(g).state for g in lost} == {"registered"}
    for i in range(4):
        relay.says(f"more-{i}", "processing")
        place.register(f"more-{i}", **PATIENT)
    place.run(30 * MINUTE)
    assert {place.get(g).state for g in lost} == {"failed"}, "now they are the minority"


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"failure_reason": "content moderation: the prompt was flagged as unsafe"}, "moderated"),
        ({"failure_reason": "generation failed: internal error"}, "provider_error"),
        ({"failure_reason": "invalid input: the image could not be read"}, "bad_input"),
        ({}, "provider_error"),
    ],
)
def test_error_codes(place: Place, relay: Relay, fields: dict[str, Any], code: str) -> None:
    relay.says("t", "failed", **fields)
    g = place.register("t")
    place.poll()
    error = place.get(g).error
    assert error is not None
    assert error.code == code
    if fields:
        assert error.message == fields["failure_reason"], "the provider's own reason"


def test_timed_out_is_soft_and_late_checks_find_the_result(place: Place, relay: Relay) -> None:
    relay.says("t", "processing")
    g = place.register("t", **PATIENT)
    place.run(2 * HOUR + MINUTE)
    late = place.get(g)
    assert late.state == "timed_out"
    assert late.finished_at is None
    assert (
        abs(
            (
                place.rows("SELECT at FROM events WHERE type = 'generation.timed_out'")[0]["at"] - late.timeout_at
            ).total_seconds()
        )
        < 2
    )
    before = late.polls
    place.run(10 * HOUR)
    # A tenth of the age apart, at least ten minutes and at most two hours.
    assert 9 <= place.get(g).polls - before <= 25
    relay.completes("t")
    place.run(2.5 * HOUR)
    assert place.get(g).state == "completed"
    assert place.types(g) == ["registered", "processing", "timed_out", "completed"]


def test_late_checks_wait_a_tenth_of_the_age(place: Place, relay: Relay) -> None:
    relay.says("t", "processing")
    g = place.register("t", timeout=HOUR, **PATIENT)
    place.run(HOUR + MINUTE)
    for _ in range(12):
        due_at = place.get(g).next_poll_at
        assert due_at is not None
        age = (place.now() - g.registered_at).total_seconds()
        wait = (due_at - place.now()).total_seconds()
        expected = min(max(age / 10, 10 * MINUTE), 2 * HOUR)
        # Up to a minute of the first wait has passed already.
        assert 0.89 * expected - MINUTE <= wait <= 1.11 * expected
        place.run(wait + 0.1)


def test_giving_up_needs_a_good_answer_after_the_timeout(place: Place, relay: Relay) -> None:
    relay.says("t", "processing")
    g = place.register("t", timeout=HOUR, give_up_after=3 * HOUR, **PATIENT)
    place.run(50 * MINUTE)
    relay.answers("t", "down", status=500)
    place.run(12 * HOUR)
    waiting = place.get(g)
    assert waiting.state == "timed_out"
    assert waiting.next_poll_at is not None, "nothing is given up on the strength of an outage"
    relay.says("t", "processing")
    place.run(3 * HOUR)
    given_up = place.get(g)
    assert (given_up.state, given_up.next_poll_at) == ("timed_out", None)
    asked = given_up.polls
    place.run(24 * HOUR)
    assert place.get(g).polls == asked


def test_one_that_never_ends_costs_almost_nothing(place: Place, relay: Relay) -> None:
    task = relay.create(misbehaviour="neverends")
    g = place.register(task, timeout=HOUR)
    place.run(60 * HOUR)
    after = place.get(g)
    assert (after.state, after.next_poll_at) == ("timed_out", None)
    in_time = [at for at in relay.asked(task) if at < g.timeout_at.timestamp()]
    assert len(relay.asked(task)) - len(in_time) < 55, "two days of late checks"
    assert len(in_time) < 200


def test_unchanged_answers_write_nothing_but_the_schedule(place: Place, relay: Relay) -> None:
    relay.says("t", "processing")
    g = place.register("t", submitted_at=place.now() - timedelta(minutes=20))
    place.poll()
    before = place.rows(
        "SELECT g.xmin::text, a.xmin::text AS answer, g.version FROM generations g JOIN answers a ON a.generation_id = g.id"
    )
    place.run(10 * MINUTE)
    assert place.get(g).polls > 5
    assert (
        place.rows(
            "SELECT g.xmin::text, a.xmin::text AS answer, g.version FROM generations g JOIN answers a ON a.generation_id = g.id"
        )
        == before
    )


def test_an_outage_of_a_quarter_hour_ends_without_a_herd(place: Place, relay: Relay) -> None:
    relay.call("faults", {"batch": "none"})  # one request for each, so that requests can be told apart
    tasks = [relay.create(misbehaviour="neverends") for _ in range(12)]
    for task in tasks:
        place.register(task, submitted_at=place.now() - timedelta(minutes=10))
    place.run(MINUTE)
    relay.call("faults", {"outage": "http502"})
    before = relay.call("stats")["requests"]
    place.run(15 * MINUTE)
    during = relay.call("stats")["requests"] - before
    assert during < 12 * 16, "not asked more often than before the outage, nor than the longest gap allows"
    relay.call("faults", {"outage": None})
    place.services.credentials.put(place.project, "default", CredentialForm(requests_per_second=2))
    began = place.now().timestamp()
    place.run(5 * MINUTE)
    assert place.scalar("SELECT count(*) FROM polls WHERE failures = 0") == 12, "everybody came back"
    assert place.scalar("SELECT count(*) FROM generations WHERE state = 'processing'") == 12
    after = sorted(at for task in tasks for at in relay.asked(task) if at >= began)
    busiest = max(sum(1 for other in after if at <= other < at + 1) for at in after)
    assert busiest <= 7, "two dispatches of a second each: nobody waits for less than the budget, nobody gets more"


def test_the_clock_learns_from_what_polls_show(place: Place, relay: Relay) -> None:
    for _ in range(6):
        place.register(relay.create(queue=1, duration=90))
    place.run(5 * MINUTE)
    assert place.services.upkeep.fold_clocks() >= 1
    learned = {row["phase"]: row for row in place.rows("SELECT phase, tasks, gaps, events FROM clocks")}
    assert learned["waiting"]["tasks"] == pytest.approx(6, abs=0.01), "each beginning is one end of the waiting"
    assert learned["processing"]["tasks"] == pytest.approx(6, abs=0.01)
    gaps = learned["processing"]["gaps"]
    assert min(gaps[int(position(70)) : int(position(95))]) < 0.8 * max(gaps[: int(position(60))]), (
        "often near the usual end"
    )
    assert place.scalar("SELECT count(*) FROM clock_deltas") == 0
    running = place.register(relay.create(queue=1, duration=90))
    place.ahead(10)
    place.poll()
    place.services.generations._learned_at = float("-inf")
    expected = place.get(running).expected_at
    assert expected is not None
    assert 40 < (expected - place.now()).total_seconds() < 150
