"""`tracker show ID --why`: one test for each reason why a generation is not asked about at this moment."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from tests.cli.lapses import lapse
from tracker.store import db
from tracker.wiring import Services

Why = Callable[[], list[str]]


def change(services: Services, statement: str) -> None:
    with psycopg.connect(services.settings.required("database_url")) as connection:
        assert connection.execute(statement).rowcount > 0


@pytest.fixture
def why(cli: Any, services: Services, registered: Callable[..., dict[str, Any]]) -> Why:
    """The reasons of one generation, which is due in 30 s, while beat rings."""
    made = registered("task-1")
    with services.database.transaction() as tx:
        db.beat(tx, "tick", db.now(tx))
    change(services, "UPDATE polls SET due_at = now() + interval '30 s'")
    return lambda: list(cli.json("show", made["id"], "--why")["why"])


def test_it_is_not_due_yet(why: Why) -> None:
    [reason] = why()
    assert reason.startswith("the next poll is due in ")


def test_it_is_due_now(why: Why, services: Services) -> None:
    change(services, "UPDATE polls SET due_at = now()")
    assert why() == ["it is due now: a worker takes it with its next batch"]


def test_polls_are_stopped(why: Why, cli: Any) -> None:
    cli("pause", "polls", "--reason", "relay maintenance")
    assert why()[0] == "polls are stopped for the whole installation (relay maintenance); `tracker resume polls`"


def test_its_account_is_paused(why: Why, services: Services) -> None:
    change(
        services,
        "UPDATE credentials SET state = 'paused', paused_reason = 'no credits', paused_at = now(), probe_at = now() + interval '50 s'",
    )
    assert why()[0].startswith("credential 'default' is paused (no credits); one probe in ")
    assert "`tracker credentials resume default`" in why()[0]


def test_the_provider_asked_to_wait(why: Why, services: Services) -> None:
    change(services, "UPDATE credentials SET blocked_until = now() + interval '90 s'")
    assert why()[0].startswith(
        "circuit: of credential default (luma) its provider asked us to wait (Retry-After), until in "
    )


def test_the_provider_does_not_answer(why: Why, services: Services) -> None:
    change(services, "UPDATE credentials SET failing = 25")
    said = "circuit: of credential default (luma) its provider has not answered 25 times in a row"
    assert why()[0].startswith(said)
    change(services, "UPDATE credentials SET blocked_until = now() + interval '20 s'")
    assert why()[0].startswith(said)
    assert ", until in " in why()[0]


def test_its_rate_is_used_up(why: Why, services: Services) -> None:
    change(services, "UPDATE credentials SET tokens = 0, refilled_at = now()")
    assert len(why()) == 1, "what is not due needs no budget"
    change(services, "UPDATE polls SET due_at = now() - interval '40 s'")
    budget, due = why()
    assert budget == "budget: of credential default (luma) its requests_per_second (20) are used up"
    assert 40 <= lapse(due, "it was due N s ago") < 60


def test_its_concurrency_is_used_up(why: Why, services: Services) -> None:
    change(services, "UPDATE polls SET due_at = now() - interval '40 s'")
    change(services, "UPDATE credentials SET concurrency = 3")
    change(
        services,
        "INSERT INTO flights (batch_id, credential_id, asks, until)"
        " SELECT gen_random_uuid(), id, 3, now() + interval '40 s' FROM credentials",
    )
    assert why()[0] == "budget: of credential default (luma) its concurrency (3) is used up"


def test_it_is_being_asked_about(why: Why, services: Services) -> None:
    change(services, "UPDATE polls SET due_at = now()")
    services.polling.dispatch()
    lease, due = why()
    assert lease.startswith("lease: it was claimed now, and its batch waits for a worker; the claim lapses in ")
    assert due.startswith("the next poll is due in ")
    change(services, "UPDATE flights SET until = until + interval '30 s', taken = true")
    assert "and a worker asks about it" in why()[0]
    change(services, "UPDATE flights SET until = now() - interval '1 s'")
    assert len(why()) == 1, "a lapsed claim is none"


def test_its_answers_fail(why: Why, services: Services) -> None:
    change(
        services,
        "UPDATE polls SET failures = 4, problem_run = 4, problem_code = 'timeout', problem_message = 'no answer', problem_at = now()",
    )
    assert why()[0].startswith("the last 4 answers failed (timeout), so it is asked less often; ")


def test_its_timeout_has_passed(why: Why, services: Services) -> None:
    change(services, "UPDATE generations SET state = 'timed_out'")
    change(services, "UPDATE polls SET lane = 1")
    assert why()[0] == "its timeout has passed: late checks are seldom, and come after everything else"


def test_it_was_given_up(why: Why, services: Services) -> None:
    change(services, "UPDATE generations SET state = 'timed_out'")
    change(services, "DELETE FROM polls")
    assert why() == ["it was given up: nothing was found until give_up_at; `tracker poll` asks once more"]


def test_it_is_over(why: Why, cli: Any) -> None:
    [made] = cli.json("list")["data"]
    cli("cancel", made["id"])
    assert why() == ["it is cancelled, and that is final; nobody is asked any more"]


def test_its_account_was_deleted(why: Why, services: Services) -> None:
    change(services, "UPDATE credentials SET providers = '{}'")
    assert why()[0] == "its credential 'default' was deleted"


def test_beat_does_not_ring_or_the_workers_are_busy(why: Why, services: Services) -> None:
    change(services, "UPDATE polls SET due_at = now() - interval '40 s'")
    [reason] = why()
    assert 40 <= lapse(reason, "it was due N s ago: all poll workers are busy; see `tracker doctor`") < 60
    change(services, "UPDATE heartbeats SET at = at - interval '1 minute' WHERE name = 'tick'")
    [reason] = why()
    assert 40 <= lapse(reason, "it was due N s ago, and beat has not rung for ") < 60


def test_a_claim_is_found_by_its_moment(services: Services, registered: Callable[..., dict[str, Any]]) -> None:
    registered("task-1")
    registered("task-2")
    services.polling.dispatch()
    services.database.ahead = timedelta(seconds=1)
    registered("task-3")
    services.polling.dispatch()
    with psycopg.connect(services.settings.required("database_url")) as connection:
        rows: list[tuple[UUID]] = connection.execute(
            "SELECT generation_id FROM polls ORDER BY generation_id"
        ).fetchall()
    leases = [services.health.lease(key) for (key,) in rows]
    assert all(lease is not None for lease in leases)
    assert len({lease.since for lease in leases if lease is not None}) == 2
