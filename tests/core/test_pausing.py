from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from tracker.core.generation import State
from tracker.core.observation import Observation, Problem, ProblemCode, Seen
from tracker.core.pausing import REFUSALS, Health, judge, pause

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A, B, C, D = (UUID(int=n) for n in range(1, 5))
REFUSED = Problem(ProblemCode.UNAUTHORIZED, "HTTP 401")
GOOD = Seen("pending", State.QUEUED)


def after(*answers: tuple[UUID, Observation], health: Health | None = None, pending: int = 100) -> Health:
    return judge(health or Health(), answers, pending=pending, now=NOW)


def test_three_refusals_of_different_generations_pause() -> None:
    assert not after((A, REFUSED), (B, REFUSED)).paused
    health = after((A, REFUSED), (B, REFUSED), (C, REFUSED))
    assert health.paused
    assert health.reason == "the provider refuses the key: HTTP 401"
    assert health.probe_at == NOW + timedelta(minutes=1)


def test_one_foreign_generation_pauses_nobody() -> None:
    assert not after(*[(A, REFUSED)] * 20).paused


def test_where_there_are_few_generations_the_same_one_counts() -> None:
    assert after(*[(A, REFUSED)] * REFUSALS, pending=1).paused
    assert after((A, REFUSED), (B, REFUSED), (A, REFUSED), pending=2).paused


def test_a_good_answer_between_starts_the_row_anew() -> None:
    assert not after((A, REFUSED), (B, REFUSED), (D, GOOD), (C, REFUSED)).paused


def test_an_outage_between_neither_counts_nor_starts_anew() -> None:
    down = Problem(ProblemCode.CONNECTION, "down")
    assert not after(*[(A, down)] * 10).paused
    assert after((A, REFUSED), (B, REFUSED), (D, down), (C, REFUSED)).paused


def test_out_of_quota_pauses_at_once_and_a_good_answer_resumes() -> None:
    paused = after((A, Problem(ProblemCode.OUT_OF_QUOTA, "no credit")))
    assert paused.paused
    assert paused.reason == "out of quota: no credit"
    assert after((B, GOOD), health=paused) == Health()
    assert after((B, Problem(ProblemCode.NOT_FOUND, "no such task")), health=paused) == Health()
    assert after((B, REFUSED), health=paused).paused


def test_a_second_reason_neither_replaces_the_first_nor_moves_the_probe() -> None:
    first = pause(Health(), "first", NOW)
    assert pause(first, "second", NOW + timedelta(hours=1)) == first


def test_a_retry_after_blocks_and_a_good_answer_does_not_lift_it() -> None:
    slow = Problem(ProblemCode.RATE_LIMITED, "slow down", 30.0)
    health = after((A, REFUSED), (A, slow), (B, GOOD))
    assert health == Health(blocked_until=NOW + timedelta(seconds=30))
    shorter = after((A, Problem(ProblemCode.RATE_LIMITED, "slow down", 5.0)), health=health)
    assert shorter.blocked_until == health.blocked_until


LIMITED = Problem(ProblemCode.RATE_LIMITED, "slow down")


def test_without_a_retry_after_it_blocks_for_a_second_and_doubles() -> None:
    health, at, waits = Health(), NOW, []
    for _ in range(7):
        # Thirty answers at once are one storm.
        health = judge(health, [(A, LIMITED)] * 30, pending=100, now=at)
        assert health.blocked_until is not None
        waits.append((health.blocked_until - at).total_seconds())
        at = health.blocked_until
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    assert not health.paused


def test_a_retry_after_of_nothing_blocks_like_none() -> None:
    none = Problem(ProblemCode.RATE_LIMITED, "slow down", 0.0)
    assert after((A, none)) == after((A, LIMITED))


def test_a_storm_ends_with_the_first_good_answer_after_its_block() -> None:
    health = after((A, LIMITED), (B, GOOD))
    assert health == Health(blocked_until=NOW + timedelta(seconds=1), limited=1), "that one was asked before the block"
    later = NOW + timedelta(seconds=2)
    well = judge(health, [(B, GOOD)], pending=100, now=later)
    assert well == Health(), "as if nothing had been: a well account is not judged at every answer"
    again = judge(well, [(A, LIMITED)], pending=100, now=later)
    assert again.blocked_until == later + timedelta(seconds=1)


answers: st.SearchStrategy[Observation] = st.just(GOOD) | st.builds(
    Problem, st.sampled_from(ProblemCode), st.just("so"), st.none() | st.floats(0, 9999)
)


@given(
    given_answers=st.lists(st.tuples(st.sampled_from([A, B, C, D]), answers), max_size=12), pending=st.integers(1, 9)
)
def test_judging_in_pieces_is_judging_at_once(given_answers: list[tuple[UUID, Observation]], pending: int) -> None:
    health = Health()
    for answer in given_answers:
        health = after(answer, health=health, pending=pending)
    assert health == after(*given_answers, pending=pending)
    assert len(health.refused) <= REFUSALS
    assert health.paused == (health.reason is not None) == (health.probe_at is not None)
