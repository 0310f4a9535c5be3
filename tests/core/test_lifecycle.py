from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tracker.core.generation import ErrorCode, Failure, Output, State
from tracker.core.lifecycle import (
    FINAL,
    NEXT,
    NOT_FOUND_GRACE,
    NOT_FOUND_RUN,
    RETRACKABLE,
    UNCHANGED,
    Decision,
    Known,
    decide,
    says_nothing_new,
)
from tracker.core.observation import Observation, Problem, ProblemCode, Seen

START = datetime(2026, 1, 1, tzinfo=UTC)
VIDEO = (Output("video", 0, "https://cdn.example/a.mp4"),)
HALF = 0.5  # the roll that jitters nothing

states = st.sampled_from([State.QUEUED, State.PROCESSING])
pending = states.map(lambda state: Seen("pending" if state is State.QUEUED else "dreaming", state))
ends = st.sampled_from(
    [
        Seen("completed", State.COMPLETED, outputs=VIDEO),
        Seen("failed", State.FAILED, error=Failure(ErrorCode.MODERATED, "no")),
        Seen("canceled", State.CANCELLED),
    ]
)
waits = st.none() | st.floats(0, 10_000)
problems = st.builds(
    Problem, st.sampled_from(sorted(set(ProblemCode) - {ProblemCode.RATE_LIMITED})), st.just("so")
) | st.builds(Problem, st.just(ProblemCode.RATE_LIMITED), st.just("slow down"), waits)
rolls = st.floats(0, 1, exclude_max=True)


def known(state: State = State.REGISTERED, **fields: Any) -> Known:
    return Known(state, START, START + timedelta(hours=2), START + timedelta(hours=48))._replace(**fields)


def at(**span: float) -> datetime:
    return START + timedelta(**span)


def look(what: Known, seen: Observation, now: datetime, *, roll: float = HALF, outage: bool = False) -> Decision:
    return decide(what, seen, now=now, roll=roll, outage=outage)


def recorded(before: Known, decision: Decision) -> Known:
    """What would be known after the decision was written."""
    return before._replace(
        state=decision.to or before.state,
        provider_status=before.provider_status if decision.provider_status is None else decision.provider_status,
        progress=before.progress if decision.progress is None else decision.progress,
        outputs=before.outputs if decision.outputs is None else decision.outputs,
        failures=decision.failures,
        problem_code=decision.problem.code if decision.problem else before.problem_code,
        problem_run=decision.problem_run,
        answered_late=decision.answered_late,
    )


class OneLife(RuleBasedStateMachine):
    """A generation that is asked about at odd times and sees anything at all, until nothing is left to ask."""

    @initialize(timeout=st.floats(1, 8000), more=st.floats(0, 100_000))
    def register(self, timeout: float, more: float) -> None:
        self.now = self.asked_at = START
        self.known = known(timeout_at=at(seconds=timeout), give_up_at=at(seconds=timeout + more))
        self.before, self.decision = self.known, Decision()
        self.seen: Observation = Seen("", State.QUEUED)
        self.answered_late = self.over = False

    @rule(gone=st.floats(0, 4000))
    def wait(self, gone: float) -> None:
        self.now += timedelta(seconds=gone)

    @rule(seen=pending | problems | pending, roll=rolls, outage=st.booleans())
    def ask(self, seen: Observation, roll: float, outage: bool) -> None:
        self._ask(seen, roll, outage)

    @rule(seen=ends, roll=rolls)
    def ask_and_find_the_end(self, seen: Seen, roll: float) -> None:
        if self.now > at(hours=3):  # else nearly every life is short
            self._ask(seen, roll, outage=False)

    def _ask(self, seen: Observation, roll: float, outage: bool) -> None:
        if self.over:
            return
        self.before, self.seen, self.asked_at = self.known, seen, self.now
        self.decision = decide(self.known, seen, now=self.now, roll=roll, outage=outage)
        self.known = recorded(self.known, self.decision)
        self.over = self.decision.over
        # The provider has answered, too, when it says what cannot be used, or, but for an outage, that it knows no such task.
        lost = not isinstance(seen, Seen) and seen.code is ProblemCode.NOT_FOUND and not outage
        useless = not isinstance(seen, Seen) and seen.code in {ProblemCode.NO_OUTPUT, ProblemCode.UNKNOWN_STATUS}
        answers = isinstance(seen, Seen) or lost or useless
        if answers and self.now >= self.known.timeout_at:
            self.answered_late = True

    @invariant()
    def moves_are_legal(self) -> None:
        assert self.decision.to is None or self.decision.to in NEXT[self.before.state]

    @invariant()
    def only_a_good_answer_or_not_found_ends(self) -> None:
        if self.known.state in FINAL:
            assert self.over
            ended = (
                self.seen.state is self.known.state
                if isinstance(self.seen, Seen)
                else self.seen.code is ProblemCode.NOT_FOUND
            )
            assert ended
            assert self.known.state is State.COMPLETED or self.decision.error is not None

    @invariant()
    def nothing_is_given_up_early_or_unanswered(self) -> None:
        if self.over and self.known.state not in FINAL:
            assert self.known.state is State.TIMED_OUT
            assert self.now >= self.known.give_up_at
            assert self.answered_late

    @invariant()
    def timed_out_exactly_when_asked_past_the_deadline(self) -> None:
        if self.known.state not in FINAL:
            assert (self.known.state is State.TIMED_OUT) == (self.asked_at >= self.known.timeout_at)

    @invariant()
    def waits_are_bounded(self) -> None:
        if self.decision.wait is not None:
            assert 0 <= self.decision.wait <= 2 * 3600 * 1.1

    @invariant()
    def a_run_counts_equal_problems(self) -> None:
        assert self.decision.problem_run <= self.decision.failures
        assert (self.decision.problem is None) == (self.decision.failures == 0)


def test_a_life_under_any_answers() -> None:
    run_state_machine_as_test(OneLife, settings=settings(settings.default, max_examples=25, stateful_step_count=25))


def test_the_table_of_moves() -> None:
    assert set(NEXT) == set(State)
    assert {State.COMPLETED, State.FAILED, State.CANCELLED} == FINAL
    assert all(not {State.REGISTERED, state} & moves for state, moves in NEXT.items())
    assert State.QUEUED not in NEXT[State.PROCESSING]
    assert NEXT[State.TIMED_OUT] == FINAL
    assert State.COMPLETED not in RETRACKABLE


def test_back_to_queued_is_a_provider_status_and_no_transition() -> None:
    decision = look(known(State.PROCESSING, provider_status="dreaming"), Seen("queued", State.QUEUED), at(minutes=1))
    assert (decision.to, decision.provider_status, decision.wait) == (None, "queued", None)
    assert decision.rewrites


def test_an_unchanged_answer_writes_nothing() -> None:
    same = known(State.PROCESSING, provider_status="dreaming", progress=0.5, outputs=VIDEO)
    decision = look(same, Seen("dreaming", State.PROCESSING, 0.5, VIDEO), at(minutes=1))
    assert decision == Decision()
    assert not decision.rewrites


@given(
    seen=st.sampled_from([Seen("a", State.QUEUED), Seen("a", State.PROCESSING, 0.5), Seen("a", State.PROCESSING), Seen("a", State.COMPLETED)])
    | pending | problems | ends,
    state=st.sampled_from([s for s in State if s not in FINAL and s is not State.TIMED_OUT]),
    status=st.sampled_from(["a", "b", None]), progress=st.sampled_from([None, 0.5, 0.7]), failures=st.integers(0, 2), roll=rolls,
)  # fmt: skip
def test_what_says_nothing_new_is_decided_to_be_unchanged(
    *, seen: Observation, state: State, status: str | None, progress: float | None, failures: int, roll: float
) -> None:
    before = known(state, provider_status=status, progress=progress, failures=failures)
    quick = says_nothing_new(seen, state=state, provider_status=status, progress=progress, failures=failures)
    decision = look(before, seen, at(minutes=5), roll=roll)
    assert not quick or decision == UNCHANGED
    if isinstance(seen, Seen) and seen.progress == progress and not failures:
        assert quick == (decision == UNCHANGED), "and it finds nearly all that are"


def test_progress_alone_does_not_rewrite_the_generation() -> None:
    decision = look(
        known(State.PROCESSING, provider_status="dreaming"), Seen("dreaming", State.PROCESSING, 0.4), at(minutes=1)
    )
    assert decision.progress == 0.4
    assert not decision.rewrites


@given(seen=ends, state=st.sampled_from(sorted(set(State) - FINAL)))
def test_any_open_state_may_end(seen: Seen, state: State) -> None:
    decision = look(known(state), seen, at(hours=30))
    assert decision.to is seen.state
    assert decision.over
    assert decision.provider_status == seen.status


def test_an_end_without_a_reason_still_has_an_error() -> None:
    cancelled = look(known(), Seen("canceled", State.CANCELLED), at(minutes=1)).error
    failed = look(known(), Seen("fail", State.FAILED), at(minutes=1)).error
    assert cancelled
    assert cancelled.code is ErrorCode.CANCELLED_BY_PROVIDER
    assert failed
    assert (failed.code, failed.provider_code) == (ErrorCode.PROVIDER_ERROR, "fail")


def test_completed_without_output_is_a_problem_and_shows_that_the_task_was_seen() -> None:
    decision = look(known(), Seen("completed", State.COMPLETED), at(minutes=1))
    assert decision.to is None
    assert decision.problem
    assert decision.problem.code is ProblemCode.NO_OUTPUT
    assert decision.provider_status == "completed"
    assert not decision.over


def test_a_late_check_still_finds_the_paid_result() -> None:
    late = known(State.TIMED_OUT, provider_status="dreaming")
    assert look(late, Seen("completed", State.COMPLETED, outputs=VIDEO), at(hours=40)).to is State.COMPLETED


def test_past_the_timeout_a_pending_answer_times_out_and_late_checks_begin() -> None:
    decision = look(known(State.QUEUED, provider_status="pending"), Seen("dreaming", State.PROCESSING), at(hours=2))
    assert decision.to is State.TIMED_OUT
    assert decision.provider_status == "dreaming"
    assert decision.wait == pytest.approx(720)
    assert decision.answered_late
    assert not decision.over
    again = look(known(State.TIMED_OUT), Seen("dreaming", State.PROCESSING), at(hours=40))
    assert again.to is None
    assert again.wait == pytest.approx(7200)


def test_late_checks_count_the_age_from_the_submit() -> None:
    early = known(State.TIMED_OUT, submitted_at=START - timedelta(hours=3))
    assert look(early, Seen("dreaming", State.PROCESSING), at(hours=2)).wait == pytest.approx(1800)


def test_giving_up_needs_a_good_answer_since_the_timeout() -> None:
    problem, late = Problem(ProblemCode.CONNECTION, "down"), known(State.TIMED_OUT)
    unanswered = look(late, problem, at(hours=49))
    assert not unanswered.over
    assert unanswered.wait is not None
    assert look(late._replace(answered_late=True), problem, at(hours=49)).over
    assert look(late, Seen("dreaming", State.PROCESSING), at(hours=49)).over
    assert look(late._replace(answered_late=True), problem, at(hours=47)).answered_late


@pytest.mark.parametrize("code", [ProblemCode.NOT_FOUND, ProblemCode.NO_OUTPUT, ProblemCode.UNKNOWN_STATUS])
def test_a_task_that_the_provider_says_nothing_usable_of_is_given_up_in_the_end(code: ProblemCode) -> None:
    problem, seen = Problem(code, "lost"), known(State.TIMED_OUT, provider_status="processing")
    assert not look(seen, problem, at(hours=47)).over
    assert look(seen, problem, at(hours=47)).answered_late
    assert look(seen, problem, at(hours=49)).over
    assert not look(known(State.PROCESSING), problem, at(hours=1)).answered_late, "before the timeout nothing is late"
    if code is ProblemCode.NOT_FOUND:
        during = look(seen, problem, at(hours=49), outage=True)
        assert (during.over, during.answered_late) == (False, False), "an outage proves nothing"


@pytest.mark.parametrize("wish", [None, 5.0])
def test_past_the_timeout_a_problem_is_not_asked_again_sooner_than_a_late_check(wish: float | None) -> None:
    decision = look(known(State.PROCESSING), Problem(ProblemCode.RATE_LIMITED, "slow down", wish), at(hours=5))
    assert decision.to is State.TIMED_OUT
    assert decision.wait == pytest.approx(1800)
    longer = look(known(State.TIMED_OUT), Problem(ProblemCode.RATE_LIMITED, "slow down", 3600.0), at(hours=5))
    assert longer.wait == 3600


MISSING = Problem(ProblemCode.NOT_FOUND, "task_not_exist")


def missing_run(run: int, **fields: Any) -> Known:
    return known(problem_code=ProblemCode.NOT_FOUND.value, problem_run=run, failures=run, **fields)


def test_not_found_ends_only_after_grace_and_run() -> None:
    enough, late = missing_run(NOT_FOUND_RUN - 1), START + NOT_FOUND_GRACE
    gone = look(enough, MISSING, late)
    assert (gone.to, gone.over) == (State.FAILED, True)
    assert gone.error == Failure(ErrorCode.NOT_FOUND, "task_not_exist")
    assert look(enough, MISSING, late - timedelta(seconds=1)).to is None
    assert look(missing_run(NOT_FOUND_RUN - 2), MISSING, late).to is None
    assert look(enough._replace(problem_code="timeout"), MISSING, late).problem_run == 1


def test_not_found_never_ends_what_was_seen_once() -> None:
    assert look(missing_run(50, provider_status="pending"), MISSING, at(hours=1)).to is None
    resting = Problem(ProblemCode.UNKNOWN_STATUS, "the status 'resting' is not known", status="resting")
    seen = recorded(known(), look(known(), resting, at(minutes=1)))
    assert seen.provider_status == "resting"
    assert look(seen._replace(problem_code="not_found", problem_run=50), MISSING, at(hours=1)).to is None


def test_an_outage_proves_nothing_even_once_it_is_over() -> None:
    during = look(missing_run(50), MISSING, at(hours=1), outage=True)
    assert during.to is None
    after = recorded(missing_run(50), during)
    for n in range(NOT_FOUND_RUN - 1):
        decision = look(after, MISSING, at(hours=1, minutes=n))
        assert (decision.to is None) == (n < NOT_FOUND_RUN - 2)
        after = recorded(after, decision)


def test_failed_observations_back_off_and_a_good_answer_forgets_them() -> None:
    what, down, waits_seen = known(longest=60.0), Problem(ProblemCode.TIMEOUT, "slow"), []
    for _ in range(8):
        decision = look(what, down, at(minutes=1))
        waits_seen.append(decision.wait)
        what = recorded(what, decision)
    assert waits_seen == [2, 4, 8, 16, 32, 60, 60, 60]
    good = look(what, Seen("pending", State.QUEUED), at(minutes=1))
    assert (good.failures, good.problem_run, good.problem) == (0, 0, None)


@pytest.mark.parametrize("code", [ProblemCode.RATE_LIMITED, ProblemCode.HTTP_ERROR])
def test_a_retry_after_of_nothing_backs_off_like_none(code: ProblemCode) -> None:
    what = known(failures=5)
    assert (
        look(what, Problem(code, "later", 0.0), at(minutes=1)).wait
        == look(what, Problem(code, "later"), at(minutes=1)).wait
    )


@given(wish=st.floats(0, 10**6, exclude_min=True), failures=st.integers(0, 100), roll=rolls)
def test_retry_after_wins_up_to_an_hour(wish: float, failures: int, roll: float) -> None:
    slow = Problem(ProblemCode.RATE_LIMITED, "slow down", wish)
    what = known(failures=failures, give_up_at=at(hours=90), timeout_at=at(hours=80))
    wait = look(what, slow, at(minutes=1), roll=roll).wait
    assert wait == pytest.approx(min(wish * (1 + 0.1 * roll), 3600))
    assert min(wish, 3600) <= wait <= 3600, "never earlier than asked"


@given(roll=rolls, left=st.floats(0.001, 59), failures=st.integers(0, 9))
def test_a_short_wait_never_oversleeps_the_deadline(roll: float, left: float, failures: int) -> None:
    what = known(failures=failures, timeout_at=START + timedelta(seconds=left), longest=40.0)
    decision = look(what, Problem(ProblemCode.TIMEOUT, "slow"), START, roll=roll)
    assert decision.wait is not None
    assert decision.wait <= left + 1e-6
    assert decision.to is None
