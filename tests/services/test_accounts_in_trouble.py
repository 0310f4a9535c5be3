"""Accounts that are refused, run dry or are deleted: pause, probe, resume, and the time that does not count."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from tracker.errors import ConflictError, InvalidError, NotFoundError
from tracker.services.forms import CredentialForm, RegistrationForm
from tracker.settings import Account
from tracker.store.credentials import Credential

from .conftest import Place, Relay

MINUTE, HOUR = 60.0, 3600.0
QUOTA = '{"error": {"message": "user quota is not enough", "code": "insufficient_user_quota"}}'


def _account(place: Place, name: str = "default") -> Credential:
    return place.services.credentials.get(place.project, name)


def _refused(place: Place, relay: Relay, count: int = 3) -> list[Any]:
    for i in range(count):
        relay.answers(f"t{i}", '{"message": "invalid token"}', status=401)
    found = [place.register(f"t{i}") for i in range(count)]
    place.poll()
    return found


def test_three_refusals_from_different_generations_pause(place: Place, relay: Relay) -> None:
    relay.says("good", "processing")
    place.register("good")
    _refused(place, relay, 2)
    assert _account(place).state == "active"
    relay.answers("t2", "no", status=403)
    place.register("t2")
    place.poll()
    paused = _account(place)
    assert paused.state == "paused"
    assert paused.paused_reason is not None
    assert paused.probe_at is not None
    assert 55 < (paused.probe_at - place.now()).total_seconds() <= 60
    assert place.rows("SELECT type FROM events WHERE type LIKE 'credential.%'") == [{"type": "credential.paused"}]


def test_one_generation_refused_three_times_pauses_when_it_is_alone(place: Place, relay: Relay) -> None:
    _refused(place, relay, 1)
    place.run(MINUTE, stop=lambda: _account(place).state == "paused")
    assert _account(place).state == "paused"
    assert place.scalar("SELECT fence FROM polls") == 3


def test_the_word_of_one_among_many_is_not_enough(place: Place, relay: Relay) -> None:
    for i in range(4):
        relay.says(f"fine-{i}", "pending")
        place.register(
            f"fine-{i}", submitted_at=place.now() - timedelta(seconds=1), poll_price=3600, poll_longest=86400
        )
    _refused(place, relay, 1)
    place.run(MINUTE)
    assert place.rows("SELECT failures FROM polls WHERE failures > 3"), "refused again and again"
    assert _account(place).state == "active"


@pytest.mark.parametrize(("status", "state"), [(401, "paused"), (503, "active")])
def test_one_answer_to_a_batch_counts_once(place: Place, relay: Relay, status: int, state: str) -> None:
    relay.call("answers", {"path": "/luma/tasks", "body": '{"message": "no"}', "status": status})
    relay.call("faults", {"outage": "http503"} if status == 503 else {})
    for n in range(50):
        place.register(f"t{n}")
    place.poll()
    account = _account(place)
    assert (account.state, len(account.refused), account.failing) == (
        ("active", 1, 0) if status == 401 else ("active", 0, 2)
    ), "of 503 two: the single question that follows has an answer of its own"
    for _ in range(2):
        place.ahead(MINUTE)
        assert place.poll() == 50
    assert _account(place).state == state, "three in a row, about different generations"


def test_too_many_requests_block_the_account(place: Place, relay: Relay) -> None:
    place.change("UPDATE credentials SET batch_size = 1")
    for n in range(30):
        relay.answers(f"t{n}", "slow down", status=429)
        place.register(f"t{n}")
    assert place.poll() == 30
    blocked = _account(place).blocked_until
    assert blocked is not None
    assert 0 < (blocked - place.now()).total_seconds() <= 1
    place.register("another")
    assert place.poll() == 0
    place.ahead(1.1)
    relay.says("another", "processing")
    assert place.poll() >= 1


def test_out_of_quota_pauses_at_once_and_its_generations_wait(place: Place, relay: Relay) -> None:
    relay.answers("t", QUOTA, status=403)
    g = place.register("t")
    place.poll()
    assert _account(place).state == "paused"
    assert "out of quota" in str(_account(place).paused_reason)
    assert place.get(g).state == "registered"


def test_probes_after_1_2_4_8_16_30_30_minutes_one_request_each(place: Place, relay: Relay) -> None:
    tasks = [relay.create(misbehaviour="quota403_always") for _ in range(5)]
    for task in tasks:
        place.register(task, timeout=10 * HOUR)
    place.poll()
    began, waits = place.now(), []
    for _ in range(7):
        probe_at = _account(place).probe_at
        assert probe_at is not None
        waits.append(round((probe_at - began).total_seconds() / MINUTE))
        place.ahead((probe_at - place.now()).total_seconds() - 1)
        assert place.poll() == 0, "not a second too early"
        place.ahead(1.1)
        began = place.now()
        assert place.poll() == 1, "one probe, however many wait"
        assert place.poll() == 0
    assert waits == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("heals", [False, True])
def test_a_pause_longer_than_the_timeout_times_nothing_out(place: Place, relay: Relay, heals: bool) -> None:
    tasks = [relay.create(misbehaviour="quota403_always") for _ in range(4)]
    made = [place.register(task, timeout=HOUR) for task in tasks]
    place.poll()
    assert _account(place).state == "paused"
    for _ in range(12):
        place.ahead(30 * MINUTE)
        assert place.poll() == 1, "one probe"
    if heals:
        for task in tasks:
            relay.says(task, "processing")
        place.ahead(30 * MINUTE)
        assert place.poll() == 1
        assert _account(place).state == "active"
    assert place.scalar("SELECT count(*) FROM events WHERE to_state = 'timed_out'") == 0
    if heals:
        assert all(HOUR / 2 < (place.get(g).timeout_at - place.now()).total_seconds() <= HOUR + 5 for g in made)


@pytest.mark.parametrize("how", ["probe", "call"])
def test_resuming_moves_the_deadlines_by_the_pause(place: Place, relay: Relay, how: str) -> None:
    early = _refused(place, relay)
    place.ahead(20 * MINUTE)
    late = place.register("late")
    for i in range(3):
        relay.says(f"t{i}", "processing")
    relay.says("late", "processing")
    place.ahead(10 * MINUTE)
    if how == "probe":
        assert place.poll() == 1
    else:
        place.services.credentials.resume(place.project, "default")
    assert _account(place).state == "active"
    assert [row["type"] for row in place.rows("SELECT type FROM events WHERE generation_id IS NULL ORDER BY at")] == [
        "credential.paused",
        "credential.resumed",
    ]
    for g in early:
        after = place.get(g)
        assert (after.timeout_at - g.timeout_at).total_seconds() == pytest.approx(30 * MINUTE, abs=3)
        assert after.give_up_at - g.give_up_at == after.timeout_at - g.timeout_at
    moved = place.get(late).timeout_at - late.timeout_at
    assert moved.total_seconds() == pytest.approx(10 * MINUTE, abs=3), "it lived through a part of the pause only"
    # The simulator's batch path does not know these ids, which is learned first; then all are asked singly.
    place.run(2 * MINUTE)
    assert {place.get(g).state for g in (*early, late)} == {"processing"}


def test_downtime_does_not_count_and_not_twice_for_the_paused(place: Place, relay: Relay) -> None:
    relay.says("t", "processing")
    other = CredentialForm(providers=["luma"], base_url=relay.url, api_key="x")
    place.services.credentials.put(place.project, "other", other)
    running = place.register("t", credential="other")
    place.services.upkeep.tick()
    (waiting, *_) = _refused(place, relay)
    place.ahead(HOUR)
    place.services.upkeep.tick()
    assert (place.get(running).timeout_at - running.timeout_at).total_seconds() == pytest.approx(HOUR, abs=3)
    assert place.get(waiting).timeout_at == waiting.timeout_at, "it gets the whole pause when it resumes"
    place.services.credentials.resume(place.project, "default")
    assert (place.get(waiting).timeout_at - waiting.timeout_at).total_seconds() == pytest.approx(HOUR, abs=3)
    place.ahead(10)
    before = place.get(running).timeout_at
    place.services.upkeep.tick()
    assert place.get(running).timeout_at == before, "ten seconds between two ticks are no downtime"


def test_a_timed_out_one_keeps_its_timeout_when_giving_up_moves(place: Place, relay: Relay) -> None:
    relay.says("t", "processing")
    g = place.register("t", timeout=HOUR, poll_price=60, poll_longest=600)
    place.run(HOUR + MINUTE)
    place.services.upkeep.tick()
    place.ahead(HOUR)
    place.services.upkeep.tick()
    after = place.get(g)
    assert after.timeout_at == g.timeout_at
    assert (after.give_up_at - g.give_up_at).total_seconds() == pytest.approx(HOUR, abs=3)


def test_deleting_an_account_in_use(place: Place, relay: Relay) -> None:
    relay.says("t", "processing")
    g = place.register("t", webhook_url="http://127.0.0.1:9/x")
    place.poll()
    with pytest.raises(ConflictError) as caught:
        place.services.credentials.delete(place.project, "default")
    assert caught.value.count == 1
    place.services.credentials.delete(place.project, "default", force=True)
    after = place.get(g)
    assert after.state == "failed"
    assert after.error is not None
    assert after.error.code == "credential_deleted"
    assert place.types(g)[-1] == "failed"
    with pytest.raises(NotFoundError):
        _account(place)
    with pytest.raises(InvalidError):
        place.register("another")
    with pytest.raises(InvalidError, match="providers"):
        place.services.credentials.put(place.project, "default", CredentialForm(api_key="new"))
    fresh = place.services.credentials.put(place.project, "default", CredentialForm(providers=["luma"], api_key="new"))
    assert (fresh.base_url, fresh.state) == (None, "active"), "nothing of the old account is inherited"


def test_a_new_base_url_needs_force_while_generations_are_pending(place: Place, relay: Relay) -> None:
    place.register("t")
    elsewhere = CredentialForm(base_url="https://example.com")
    with pytest.raises(ConflictError) as caught:
        place.services.credentials.put(place.project, "default", elsewhere)
    assert caught.value.count == 1
    place.services.credentials.put(place.project, "default", CredentialForm(base_url=relay.url + "/"))
    assert (
        place.services.credentials.put(place.project, "default", elsewhere, force=True).base_url
        == "https://example.com"
    )


def test_a_put_without_the_key_keeps_it(place: Place) -> None:
    before = _account(place).api_key
    place.services.credentials.put(place.project, "default", CredentialForm(concurrency=3))
    after = _account(place)
    assert (after.api_key, after.concurrency, after.requests_per_second) == (before, 3, 50_000)


def test_the_environment_gives_one_default_for_each_provider(place: Place) -> None:
    services = place.services
    accounts = {"luma-official": Account(api_key="a"), "luma": Account(base_url="https://example.com", api_key="b")}
    services.credentials.sync_environment(
        place.project, services.settings.changed(accounts=accounts), "http://127.0.0.1:9"
    )
    services.credentials.sync_environment(
        place.project, services.settings.changed(accounts=accounts), "http://127.0.0.1:9"
    )
    found = [(c.name, c.environment_provider) for c in services.credentials.all(place.project)]
    assert found == [("default", None), ("default", "luma"), ("default", "luma-official"), ("simulator", "luma")]
    official = services.registration.register(place.project, RegistrationForm(provider="luma-official", task_id="t"))
    assert official.generation.credential_id == services.credentials.all(place.project)[2].id
    mine = services.registration.register(place.project, RegistrationForm(provider="luma", task_id="t"))
    assert mine.generation.credential_id == services.credentials.all(place.project)[0].id, (
        "what was stored by hand comes first"
    )


def test_without_any_key_the_simulator_serves(place: Place) -> None:
    services = place.services
    services.credentials.delete(place.project, "default")
    services.credentials.sync_environment(place.project, services.settings, "http://127.0.0.1:9")
    assert place.register("t").credential == "simulator"


def test_an_accounts_key_can_be_tried(place: Place, relay: Relay) -> None:
    assert place.services.credentials.test(place.project, "default")["ok"]
    relay.answers("00000000-0000-4000-8000-000000000000", "no", status=401)
    refused = place.services.credentials.test(place.project, "default")
    assert not refused["ok"]
    assert refused["status"] == 401


def test_many_may_try_a_key_at_the_same_moment(place: Place, relay: Relay) -> None:
    relay.call("faults", {"latency_ms": 300})
    with ThreadPoolExecutor(8) as threads:
        runs = [threads.submit(place.services.credentials.test, place.project, "default") for _ in range(8)]
        assert all(run.result()["ok"] for run in runs)


def test_a_new_relay_inherits_nothing_that_was_learned_of_the_old_one(place: Place, relay: Relay) -> None:
    place.change("UPDATE credentials SET batch_size = 1, no_batch_until = now() + interval '1 day'")
    same = CredentialForm(base_url=relay.url)
    assert place.services.credentials.put(place.project, "default", same).batch_size == 1
    moved = place.services.credentials.put(place.project, "default", CredentialForm(base_url="https://example.com"))
    assert (moved.batch_size, moved.no_batch_until) == (50, None)


def test_a_callback_makes_the_poll_happen_now_and_is_never_trusted(place: Place, relay: Relay) -> None:
    relay.says("task-77", "processing")
    g = place.register("task-77")
    place.poll()
    token = _account(place).callback_token
    place.services.credentials.callback(
        "luma", token, b'{"data": {"nested": [{"id": "task-77", "state": "completed"}]}}'
    )
    assert place.poll() == 1
    assert place.get(g).state == "processing"
    for body in (b"", b"not json", b"[" * 100_000, b'{"id": "unknown-task"}', b'"\\u0000task"'):
        place.services.credentials.callback("luma", token, body)
    assert place.poll() == 0
    with pytest.raises(NotFoundError):
        place.services.credentials.callback("luma", "wrong", b"{}")


def test_what_cannot_be_decrypted_is_a_problem_of_that_account_alone(place: Place, relay: Relay) -> None:
    relay.says("t", "processing")
    place.services.credentials.put(
        place.project, "other", CredentialForm(providers=["luma"], base_url=relay.url, api_key="x")
    )
    place.change("UPDATE credentials SET api_key = 'garbage' WHERE name = 'default'")
    broken, fine = place.register("t"), place.register("t", credential="other")
    place.poll()
    assert place.get(fine).state == "processing"
    problem = place.get(broken).last_problem
    assert problem is not None
    assert problem.code == "undecryptable"
