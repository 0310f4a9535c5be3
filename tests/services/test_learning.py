"""What polls teach: answers in their order, an end counted once, nothing learned from what was no observation, and no evidence lost."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from math import sqrt
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError

from tracker.core.generation import Output, State
from tracker.core.observation import Observation, Problem, ProblemCode, Seen
from tracker.core.schedule import BUCKETS, Clock
from tracker.services.forms import CredentialForm, GenerationChange
from tracker.store import batches, clocks, credentials
from tracker.store.batches import Asked, moment
from tracker.store.clocks import Delta
from tracker.store.due import SHORTEST_CLAIM

from .conftest import Place, bundle

QUEUED, MADE = Seen("queued", State.QUEUED), Seen("dreaming", State.PROCESSING)
DONE = Seen("completed", State.COMPLETED, outputs=(Output("video", 0, "https://cdn.example/v.mp4"),))
ODD = Seen("completed", State.COMPLETED)
BROKEN = Problem(ProblemCode.HTTP_ERROR, "500")


def look(place: Place) -> Asked:
    """The one generation that is due, claimed."""
    [(_, claims)] = place.claim()
    with place.services.database.transaction() as tx:
        [asked] = batches.asked(tx, bundle(claims), place.services.settings.poll_longest)
        tx.execute(text("DELETE FROM flights"))
    return asked


def record(place: Place, asked: Asked, seen: Observation) -> None:
    """An answer comes: now."""
    polling, now = place.services.polling, place.now()
    with place.services.database.transaction() as tx:
        accounts = credentials.by_id(tx, [asked.credential_id])
    polling._recording.record([polling._judge(asked, seen, b"", now, now.timestamp())], now, accounts)


def poll(place: Place, seen: Observation, after: float = 60.0) -> Asked:
    place.ahead(after)
    asked = look(place)
    record(place, asked, seen)
    return asked


def learned(place: Place) -> dict[str, Any]:
    """The clocks by phase, with all evidence folded in."""
    with place.services.polling._learning.handing_over() as evidence, place.services.database.transaction() as tx:
        clocks.append(tx, evidence)
    place.services.upkeep.fold_clocks()
    rows = place.rows("SELECT *, (SELECT sum(s) FROM unnest(exposure) s) AS watched FROM clocks")
    return {row["phase"]: row for row in rows}


def schedule(place: Place) -> Any:
    [row] = place.rows("SELECT p.*, c.phase FROM polls p JOIN clocks c ON c.id = p.clock_id")
    return row


def test_an_answer_that_a_newer_one_overtook_changes_nothing(place: Place) -> None:
    place.register("t")
    older = look(place)
    place.ahead(60)
    newer = look(place)
    record(place, newer, MADE)
    before = schedule(place)
    assert before["phase"] == "processing"
    record(place, older, BROKEN)
    after = schedule(place)
    assert (after["phase"], after["clock_from"]) == ("processing", before["clock_from"])
    assert (after["failures"], after["problem_code"], after["problem_run"]) == (0, None, 0)


def test_an_answer_of_an_earlier_life_changes_nothing(place: Place) -> None:
    g = place.register("t")
    for _ in range(2):
        poll(place, QUEUED)
    place.ahead(60)
    asked = look(place)
    place.services.generations.cancel(place.project, g.id)
    place.services.generations.retrack(place.project, g.id)
    record(place, asked, BROKEN)
    assert (schedule(place)["failures"], schedule(place)["problem_code"]) == (0, None)
    place.ahead(60)
    poll(place, BROKEN, after=0)
    assert (schedule(place)["failures"], schedule(place)["problem_code"]) == (1, "http_error"), "the new life counts"


def test_problems_count_although_each_answer_comes_after_the_next_claim(place: Place) -> None:
    place.register("t")
    first = look(place)
    place.ahead(60)
    second = look(place)
    record(place, first, BROKEN)
    assert (schedule(place)["failures"], schedule(place)["problem_code"]) == (1, "http_error")
    record(place, second, QUEUED)
    assert schedule(place)["failures"] == 1, "it was decided before the first answer was known"


def test_the_clock_restarts_half_way_between_the_looks_whatever_the_provider_says(place: Place) -> None:
    place.register("t")
    before = poll(place, QUEUED, after=0).asked
    began = Seen("dreaming", State.PROCESSING, started_at=moment(before) - timedelta(hours=1))
    after = poll(place, began).asked
    row = schedule(place)
    assert row["phase"] == "processing"
    assert row["clock_from"] == moment(before + (after - before) / 2)


def test_completed_without_a_url_teaches_nothing(place: Place) -> None:
    place.register("t")
    poll(place, QUEUED, after=0)
    for _ in range(20):
        poll(place, ODD, after=120)
    found = learned(place)["waiting"]
    assert found["tasks"] == 0
    assert found["watched"] == pytest.approx(0, abs=1), "of 40 minutes of problems"
    poll(place, DONE, after=120)
    found = learned(place)["waiting"]
    assert found["tasks"] == pytest.approx(1)
    assert found["watched"] < 3000, "the time is watched once: up to the next good answer"


def test_giving_up_is_not_an_end(place: Place) -> None:
    place.register("t", timeout=60, give_up_after=60)
    poll(place, QUEUED, after=0)
    poll(place, QUEUED, after=61)
    assert place.scalar("SELECT count(*) FROM polls") == 0, "given up"
    assert learned(place)["waiting"]["tasks"] == 0


def test_an_end_counts_once_though_two_answers_show_it(place: Place) -> None:
    place.register("t")
    first = look(place)
    place.ahead(60)
    second = look(place)
    for asked in (second, first):
        record(place, asked, DONE)
    assert learned(place)["waiting"]["tasks"] == pytest.approx(1)


def test_a_beginning_counts_once_though_two_answers_show_it(place: Place) -> None:
    place.register("t")
    first = look(place)
    place.ahead(60)
    second = look(place)
    for asked in (second, first):
        record(place, asked, MADE)
    assert learned(place)["waiting"]["tasks"] == pytest.approx(1)


def test_a_record_that_fails_has_taught_nothing(place: Place) -> None:
    place.register("t")
    asked = look(place)
    place.ahead(30)
    place.change("ALTER TABLE answers RENAME TO mislaid")
    with pytest.raises(ProgrammingError):
        record(place, asked, DONE)
    place.change("ALTER TABLE mislaid RENAME TO answers")
    assert learned(place)["waiting"]["tasks"] == 0
    record(place, asked, DONE)
    assert learned(place)["waiting"]["tasks"] == pytest.approx(1)


def test_evidence_outlives_a_store_that_fails(place: Place) -> None:
    place.register("t")
    poll(place, QUEUED, after=0)
    poll(place, QUEUED)
    place.change("ALTER TABLE clock_deltas RENAME TO mislaid")
    with pytest.raises(ProgrammingError):
        learned(place)
    place.change("ALTER TABLE mislaid RENAME TO clock_deltas")
    poll(place, DONE)
    found = learned(place)["waiting"]
    assert found["tasks"] == pytest.approx(1)
    assert 60 < found["watched"] < 121


def test_clocks_merge_without_loss_while_many_append_and_two_fold(place: Place) -> None:
    place.register("t")
    clock_id = place.scalar("SELECT id FROM clocks")
    appended = 120

    def append(count: int) -> None:
        for _ in range(count):
            with place.services.database.transaction() as tx:
                # No passages: nothing fades, so that what was put in is what must come out.
                clocks.append(tx, [Delta(clock_id, [3, 40], [0.0, 0.0], [1.0, 0.0], [2.0, 5.0])])

    with ThreadPoolExecutor(6) as threads:
        writers = [threads.submit(append, appended // 4) for _ in range(4)]
        folders = [threads.submit(lambda: [place.services.upkeep.fold_clocks() for _ in range(15)]) for _ in range(2)]
        for run in (*writers, *folders):
            run.result()
    found = learned(place)["waiting"]
    assert found["tasks"] == appended
    assert (found["events"][3], found["exposure"][3], found["exposure"][40]) == (appended, 2 * appended, 5 * appended)


def believe(place: Place, phase: str, mean: float, tasks: float = 100) -> None:
    """Make one phase of the clock sure of an exponential law."""
    with place.services.database.transaction() as tx:
        clocks.ensure(tx, [("luma", "")], phase, price=0.5)
    place.change(
        "UPDATE clocks SET events = :events, exposure = :exposure, gaps = :gaps, tasks = :tasks WHERE phase = :phase",
        phase=phase, events=[1e9 / mean] * BUCKETS, exposure=[1e9] * BUCKETS, gaps=[sqrt(mean)] * (BUCKETS + 1), tasks=tasks,
    )  # fmt: skip


def test_the_end_is_expected_after_the_queue_and_the_making(place: Place) -> None:
    g = place.register("t")

    def expected() -> float | None:
        place.services.generations._learned_at = float("-inf")
        at = place.get(g).expected_at
        return None if at is None else (at - place.now()).total_seconds()

    believe(place, "waiting", 30)
    assert expected() == pytest.approx(30, abs=1), "a provider that shows no processing"
    believe(place, "processing", 200, tasks=0)
    assert expected() is None, "nobody knows yet how long it is made"
    believe(place, "processing", 200)
    assert expected() == pytest.approx(230, abs=2)
    poll(place, QUEUED, after=0)
    assert expected() == pytest.approx(230, abs=2)
    poll(place, MADE)
    assert expected() == pytest.approx(200, abs=2)


def test_who_begins_to_be_processed_is_asked_about_next_by_that_clock(place: Place) -> None:
    place.register("t")
    poll(place, QUEUED, after=0)
    believe(place, "waiting", 30)
    believe(place, "processing", 2000)
    place.services.polling._learning._learned_at = float("-inf")
    poll(place, MADE)
    wait = (schedule(place)["due_at"] - place.now()).total_seconds()
    assert 0.85 * sqrt(2000) < wait < 1.1 * sqrt(2000), "and not sqrt(30) as while it waited"


def test_another_credential_keeps_the_clock_of_one_that_is_being_made(place: Place) -> None:
    fields = {"providers": ["luma"], "base_url": place.relay.url, "poll_longest": 33}
    place.services.credentials.put(place.project, "other", CredentialForm.model_validate(fields))
    g = place.register("t")
    poll(place, QUEUED, after=0)
    poll(place, MADE)
    before = schedule(place)
    place.services.generations.edit(place.project, g.id, GenerationChange(credential="other"))
    after = schedule(place)
    assert (after["phase"], after["clock_from"]) == ("processing", before["clock_from"])
    assert (after["longest"], after["credential_id"] == before["credential_id"]) == (33, False)
    place.services.generations.edit(place.project, g.id, GenerationChange(kind="extend"))
    moved = schedule(place)
    assert (moved["phase"], moved["clock_from"]) == ("processing", before["clock_from"])
    assert moved["clock_id"] != before["clock_id"], "another kind is learned by itself"
    place.services.generations.cancel(place.project, g.id)
    place.services.generations.retrack(place.project, g.id)
    assert schedule(place)["phase"] == "waiting", "tracked again from the beginning"


def _ninety_seconds() -> Clock:
    """A clock that has seen 200 tasks of about 90 seconds."""
    clock, dice = Clock(), random.Random(7)
    for _ in range(200):
        end, before = dice.gauss(90, 12), 0.0
        while before < end:
            clock.observe(before, before + 6, done=before + 6 >= end)
            before += 6
    return clock


def _waits(
    place: Place, knobs: list[tuple[float, float | None, float | None]], clock: Clock
) -> list[tuple[float, bool]]:
    """For generations of these (age, price, longest), asked about now: seconds to the next poll, and whether that was written."""
    made = [place.register(f"t{i}") for i in range(len(knobs))]
    place.change(
        "UPDATE clocks SET events = :events, exposure = :exposure, gaps = :gaps",
        events=clock.events, exposure=clock.exposure, gaps=clock.gaps(0.5),
    )  # fmt: skip
    for g, (age, price, longest) in zip(made, knobs, strict=True):
        place.change(
            "UPDATE polls SET clock_from = :from, due_at = :now, price = :price, longest = :longest WHERE generation_id = :id",
            **{"from": place.now() - timedelta(seconds=age), "now": place.now(), "price": price, "longest": longest, "id": g.id},
        )  # fmt: skip
    [(_, claims)] = place.claim()
    with place.services.database.transaction() as tx:
        asked = {a.id: a for a in batches.asked(tx, bundle(claims), place.services.settings.poll_longest)}
    learning, now = place.services.polling._learning, max(a.asked for a in asked.values())
    learning.refresh({a.clock_id for a in asked.values()})
    found = []
    for g in made:
        a = asked[g.id]
        mended = learning.mended(a, now)
        found.append((a.due - a.asked if mended is None else mended, mended is not None))
    return found


def test_a_price_of_its_own_is_the_rule_on_a_learned_clock(place: Place) -> None:
    clock = _ninety_seconds()
    ages = (0.5, 7, 20, 40, 65, 80, 95, 120, 300, 1500)
    knobs = [(age, price, longest) for age in ages for price in (0.05, 0.3, 2, 8, 60) for longest in (None, 20, 300)]
    for (age, price, longest), (wait, _) in zip(knobs, _waits(place, knobs, clock), strict=True):
        bound = longest or place.services.settings.poll_longest
        rule = clock.next_gap(age, price, bound)
        assert 0.7 * rule <= wait <= max(1.4 * rule, 1.1 * SHORTEST_CLAIM), (age, price, longest, rule)
        assert wait <= bound


def test_a_strained_budget_is_paid_for_at_any_price(place: Place) -> None:
    clock = _ninety_seconds()
    [(plain, _)] = _waits(place, [(7, 8.0, 300.0)], clock)
    with place.services.database.transaction() as tx:
        [a] = batches.asked(tx, bundle([(place.scalar("SELECT generation_id FROM polls"), 1)]), 60.0)
    strained = a._replace(due=a.asked + 3 * (a.due - a.asked))
    mended = place.services.polling._learning.mended(strained, a.asked)
    assert mended is not None
    assert 2 * plain < mended < 4 * plain


def test_a_longest_gap_under_the_shortest_claim_holds(place: Place) -> None:
    knobs = [(age, price, longest) for age in (0, 40, 300) for price in (None, 8.0) for longest in (1.0, 2.5, 4.5)]
    for (_, _, longest), (wait, _) in zip(knobs, _waits(place, knobs, Clock()), strict=True):
        assert longest is not None
        assert 0.5 <= wait <= longest


def test_most_polls_need_no_write_of_their_own(place: Place) -> None:
    knobs = [(age, None, 30.0) for age in (0, 7, 20, 40, 60, 300)]
    assert not any(written for _, written in _waits(place, knobs, _ninety_seconds()))
