"""Registering: idempotent, in bulk, and safe when two do the same at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, text

from tracker.core import ids
from tracker.core.generation import Generation
from tracker.errors import ConflictError, InvalidError, TrackerError
from tracker.services.forms import CredentialForm, RegistrationForm
from tracker.services.registration import Registered
from tracker.store import credentials, generations

from .conftest import Place, until

FULL: dict[str, Any] = {
    "webhook_url": "http://127.0.0.1:9/hook", "events": ["generation.completed"], "download": ["video"], "metadata": {"user": 7},
    "tags": ["a", "b"], "kind": "extend", "model": "ray-2", "timeout": "PT1H", "give_up_after": 7200, "poll_price": 0.3,
    "poll_longest": 33.3, "submitted_at": "2026-01-02T03:04:05Z",
}  # fmt: skip


def _form(task: str = "t", **fields: Any) -> RegistrationForm:
    return RegistrationForm.model_validate({"provider": "luma", "task_id": task, **fields})


def _register(place: Place, task: str = "t", **fields: Any) -> Registered:
    return place.services.registration.register(place.project, _form(task, **fields))


def _created(outcome: Registered | TrackerError) -> bool | str:
    return outcome.created if isinstance(outcome, Registered) else type(outcome).__name__


def _knobs(place: Place) -> dict[str, tuple[float | None, float | None]]:
    rows = place.rows("SELECT g.task_id, p.price, p.longest FROM polls p JOIN generations g ON g.id = p.generation_id")
    return {row["task_id"]: (row["price"], row["longest"]) for row in rows}


def test_price_and_longest_are_its_own_else_the_credentials_else_the_installations(place: Place) -> None:
    def put(**fields: Any) -> None:
        place.services.credentials.put(place.project, "default", CredentialForm(**fields))

    _register(place, "before", poll_longest=33)
    put(poll_price=8, poll_longest=300)
    _register(place, "plain")
    _register(place, "own", poll_price=0.1)
    assert _knobs(place) == {"before": (8, 33), "plain": (8, 300), "own": (pytest.approx(0.1), 300)}
    put(concurrency=7)
    put(poll_price=2)
    assert _knobs(place) == {"before": (2, 33), "plain": (2, 300), "own": (pytest.approx(0.1), 300)}
    plain = _register(place, "plain").generation
    place.services.generations.cancel(place.project, plain.id)
    place.services.generations.retrack(place.project, plain.id)
    assert _knobs(place)["plain"] == (2, 300)
    put(poll_price=None, poll_longest=None)
    assert _knobs(place) == {"before": (None, 33), "plain": (None, None), "own": (pytest.approx(0.1), None)}


def test_a_shorter_longest_gap_holds_at_once_except_where_a_failure_waits(place: Place) -> None:
    for task in ("fine", "failing"):
        _register(place, task)
    place.change("UPDATE polls SET due_at = now() + interval '1 h'")
    place.change(
        "UPDATE polls SET failures = 1 FROM generations g WHERE g.id = generation_id AND g.task_id = 'failing'"
    )
    place.services.credentials.put(place.project, "default", CredentialForm(poll_longest=20))
    rows = place.rows("SELECT g.task_id, due_at FROM polls JOIN generations g ON g.id = generation_id")
    waits = {row["task_id"]: (row["due_at"] - place.now()).total_seconds() for row in rows}
    assert 15 < waits["fine"] <= 20
    assert waits["failing"] > 3000


def test_whoever_registers_while_a_credential_changes_gets_the_new_values(place: Place) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with ThreadPoolExecutor(1) as threads:
        with place.services.database.transaction() as tx:
            # As a registration under way does it.
            tx.execute(text("SELECT FROM credentials FOR KEY SHARE"))
            change = threads.submit(
                place.services.credentials.put, place.project, "default", CredentialForm(poll_price=8)
            )
            until(lambda: place.scalar(waiting), "the change waits for the registration")
            _register(place, "meanwhile")
            assert _knobs(place) == {"meanwhile": (None, None)}
        change.result(10)
    assert _knobs(place) == {"meanwhile": (8, None)}


WHILE_WAITING = [
    ("UPDATE credentials SET poll_price = 8", (8, None)),
    ("UPDATE credentials SET providers = '{}'", None),
    ("DELETE FROM credentials", None),
]


@pytest.mark.parametrize(("change", "knobs"), WHILE_WAITING)
def test_what_a_credential_is_once_its_change_is_done_counts(
    place: Place, change: str, knobs: tuple[float | None, float | None] | None
) -> None:
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with ThreadPoolExecutor(1) as threads:
        with place.services.database.transaction() as tx:
            tx.execute(text("SELECT FROM credentials FOR UPDATE"))
            tx.execute(text(change))
            registering = threads.submit(_register, place, "late")
            until(lambda: place.scalar(waiting), "the registration waits for the change")
        if knobs is None:
            with pytest.raises(InvalidError, match="credential"):
                registering.result(10)
        else:
            assert registering.result(10).created
    assert _knobs(place) == ({} if knobs is None else {"late": knobs})
    assert place.scalar("SELECT count(*) FROM events") == len(_knobs(place))


def test_every_field_is_stored_as_it_was_sent(place: Place) -> None:
    made = _register(place, **FULL).generation
    stored = place.get(made)
    same = (
        "webhook_url",
        "webhook_events",
        "download",
        "metadata",
        "tags",
        "kind",
        "model",
        "timeout",
        "submitted_at",
        "timeout_at",
    )
    assert {name: getattr(stored, name) for name in same} == {name: getattr(made, name) for name in same}
    assert stored.give_up_at - stored.registered_at == timedelta(hours=2)
    assert stored.next_poll_at == made.next_poll_at
    assert (stored.version, stored.sequence, stored.state) == (1, 1, "registered")


def test_the_same_again_finds_it_and_an_absent_field_contradicts_nothing(place: Place) -> None:
    first = _register(place, **FULL)
    assert first.created
    for fields in ({}, FULL, {"tags": ["a", "b"]}, {"timeout": 3600, "model": "ray-2"}):
        again = _register(place, **fields)
        assert not again.created
        assert again.generation.id == first.generation.id
    assert place.scalar("SELECT count(*) FROM events") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("metadata", {"user": 8}), ("tags", ["a"]), ("kind", None), ("model", "ray-1"), ("timeout", 3601), ("give_up_after", 7000),
        ("give_up_after", 8000), ("poll_price", 0.4), ("poll_longest", 20), ("download", True), ("events", ["generation.failed"]),
        ("submitted_at", "2026-01-02T03:04:06Z"), ("webhook_url", "http://127.0.0.1:9/other"),
    ],
)  # fmt: skip
def test_a_field_that_differs_is_a_conflict_that_names_it(place: Place, name: str, value: Any) -> None:
    stored = place.get(_register(place, **FULL).generation)
    with pytest.raises(ConflictError) as caught:
        _register(place, **{**FULL, name: value})
    assert [problem.field for problem in caught.value.problems] == [name]
    assert caught.value.id == ids.public("gen", stored.id)
    assert place.get(stored) == stored, "nothing is changed by it"


def test_deadlines_that_moved_are_no_difference(place: Place) -> None:
    g = _register(place, **FULL).generation
    place.services.upkeep.tick()
    place.ahead(600)
    place.services.upkeep.tick()
    assert place.get(g).timeout_at > g.timeout_at
    assert not _register(place, **FULL).created


def test_a_batch_answers_in_order_and_one_bad_item_hinders_nobody(place: Place) -> None:
    _register(place, "known", model="x")
    forms: list[RegistrationForm | InvalidError] = [
        _form("a"), InvalidError(), _form("b", tags=["x"]), _form("known"), _form("known", model="y"), _form("a"), _form("b", tags=["y"]),
        _form("c", credential="nobody"), _form("d", webhook_url="http://10.0.0.1/x"), _form("e"),
    ]  # fmt: skip
    outcomes = place.services.registration.register_many(place.project, forms)
    assert [_created(outcome) for outcome in outcomes] == [
        True, "InvalidError", True, False, "ConflictError", False, "ConflictError", "InvalidError", "InvalidError", True,
    ]  # fmt: skip
    newest = place.rows("SELECT task_id FROM generations ORDER BY id")
    assert [row["task_id"] for row in newest] == ["known", "a", "b", "e"], "ids rise in the order of the request"
    assert place.scalar("SELECT count(*) FROM events WHERE type = 'generation.registered'") == 4
    assert place.scalar("SELECT count(*) FROM polls") == 4


def test_a_thousand_at_once(place: Place) -> None:
    forms = [_form(f"t{i}", tags=[f"tag{i % 7}"], metadata={"n": i}) for i in range(1000)]
    outcomes = place.services.registration.register_many(place.project, forms)
    made = [outcome.generation for outcome in outcomes if isinstance(outcome, Registered) and outcome.created]
    assert len(made) == 1000
    some: Generation = place.get(made[703])
    assert (some.task_id, some.metadata, some.tags) == ("t703", {"n": 703}, ("tag3",))


def test_two_batches_in_opposite_order_at_once_never_deadlock(place: Place) -> None:
    forms = [_form(f"t{i}", model=f"m{i % 40}", webhook_url=f"http://127.0.0.1:{9000 + i % 40}/") for i in range(300)]
    register = place.services.registration.register_many
    with ThreadPoolExecutor(4) as threads:
        runs = [threads.submit(register, place.project, forms[::step]) for step in (1, -1, 1, -1)]
        outcomes = [run.result() for run in runs]
    created = sum(_created(outcome) is True for run in outcomes for outcome in run)
    assert created == 300
    assert all(isinstance(outcome, Registered) for run in outcomes for outcome in run)
    assert place.scalar("SELECT count(*) FROM events") == place.scalar("SELECT count(*) FROM polls") == 300


def test_unknown_accounts_and_kinds_say_what_to_do(place: Place) -> None:
    with pytest.raises(InvalidError, match="TRACKER_LUMA_OFFICIAL_API_KEY"):
        place.services.registration.register(place.project, RegistrationForm(provider="luma-official", task_id="t"))
    with pytest.raises(InvalidError, match="nobody-knows"):
        place.services.registration.register(place.project, RegistrationForm(provider="nobody-knows", task_id="t"))
    with pytest.raises(InvalidError, match="submitted_at"):
        _register(place, submitted_at=(place.now() + timedelta(hours=1)).isoformat())


def test_the_same_task_under_two_accounts_is_two_generations(place: Place) -> None:
    place.services.credentials.put(place.project, "second", CredentialForm(providers=["luma"], api_key="other"))
    assert _register(place).created
    assert _register(place, credential="second").created


def test_nobody_registers_with_an_account_that_is_being_deleted(place: Place) -> None:
    def deleted() -> None:
        place.services.credentials.delete(place.project, "default", force=True)

    def registered(number: int) -> Any:
        try:
            return _register(place, f"t{number}").generation
        except InvalidError as wrong:
            return wrong

    with ThreadPoolExecutor(6) as threads:
        runs = [threads.submit(registered, i) for i in range(20)]
        end = threads.submit(deleted)
        made = [run.result() for run in runs]
        end.result()
    made += [registered(99)]
    assert isinstance(made[-1], InvalidError)
    alive = [g for g in made if isinstance(g, Generation)]
    assert {place.get(g).state for g in alive} <= {"failed"}, "none is left pending without an account"
    assert place.scalar("SELECT count(*) FROM polls") == 0


def test_what_is_registered_in_the_same_moment_shares_a_transaction_and_each_gets_its_own_answer(place: Place) -> None:
    _register(place, "before", model="a")
    held = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with ThreadPoolExecutor(16) as threads:
        with place.services.database.transaction() as tx:
            credentials.lock(tx, credentials.of_project(tx, place.project)[0].id, against_use=True)
            first = [threads.submit(_register, place, f"first-{n}") for n in range(2)]
            until(lambda: place.scalar(held) == 2, "both turns wait for the account")
            same = [threads.submit(_register, place, "same") for _ in range(2)]
            other = threads.submit(_register, place, "before", model="b")
            wrong = threads.submit(_register, place, "wrong", credential="nobody")
            until(lambda: len(place.services.registration._together._waiting) == 4, "the rest waits for its turn")
        assert all(one.result(10).created for one in first)
        assert sorted(one.result(10).created for one in same) == [False, True]
        with pytest.raises(ConflictError):
            other.result(10)
        with pytest.raises(InvalidError):
            wrong.result(10)
    assert place.scalar("SELECT count(*) FROM generations") == 4


def test_what_only_one_makes_fail_fails_for_nobody_else(place: Place) -> None:
    # No form lets a NUL through; the database refuses it, and with it everything of its transaction.
    bad = _form("bad").model_copy(update={"task_id": "b\0d"})
    outcomes = place.services.registration._register_each([(place.project, f) for f in (_form("a"), bad, _form("c"))])
    assert [type(outcome).__name__ for outcome in outcomes] == ["Registered", "DataError", "Registered"]
    assert {row["task_id"] for row in place.rows("SELECT task_id FROM generations")} == {"a", "c"}


def test_rewriting_one_or_some_of_many_reads_no_table_whole(place: Place) -> None:
    made = place.services.registration.register_many(place.project, [_form(f"t{n}") for n in range(1000)])
    place.change("ANALYZE generations")
    found = [outcome.generation for outcome in made if isinstance(outcome, Registered)]
    for some in (found[:1], found[:50]):
        with place.services.database.transaction() as tx:
            seen: list[str] = []

            def explained(
                connection: Any, _cursor: Any, statement: str, values: Any, *_: Any, seen: list[str] = seen
            ) -> None:
                if "UPDATE generations" in statement and not statement.startswith("EXPLAIN"):
                    seen += [row[0] for row in connection.exec_driver_sql(f"EXPLAIN {statement}", values)]

            event.listen(tx, "before_cursor_execute", explained)
            generations.rewrite(tx, some, place.now())
        plan = "\n".join(seen)
        assert "Index Scan" in plan, plan
        assert "Seq Scan" not in plan, plan
