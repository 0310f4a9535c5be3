"""How a generation moves: the one table of legal moves, and `decide`, which judges an observation.

`decide` knows nothing of storage: it gets what was known and what was seen, and says everything that must be written.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from tracker.core import backoff
from tracker.core.generation import ErrorCode, Failure, Output, State
from tracker.core.observation import Observation, Problem, ProblemCode, Seen

NEXT: dict[State, frozenset[State]] = {
    State.REGISTERED: frozenset(State) - {State.REGISTERED},
    State.QUEUED: frozenset(State) - {State.REGISTERED, State.QUEUED},
    State.PROCESSING: frozenset({State.COMPLETED, State.FAILED, State.CANCELLED, State.TIMED_OUT}),
    State.TIMED_OUT: frozenset({State.COMPLETED, State.FAILED, State.CANCELLED}),
    State.COMPLETED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}
FINAL = frozenset(state for state, moves in NEXT.items() if not moves)
RETRACKABLE = frozenset({State.FAILED, State.CANCELLED, State.TIMED_OUT})
"""Ends that a person may take back: only a completed one is beyond doubt."""

NOT_FOUND_GRACE = timedelta(minutes=10)
"""Relays answer "no such task" for up to minutes after a submit: before this age it proves nothing."""
NOT_FOUND_RUN = 5
"""So many not-found answers in a row are needed to believe it."""


class Known(NamedTuple):
    """What we knew of a generation when it was asked about."""

    state: State
    registered_at: datetime
    timeout_at: datetime
    give_up_at: datetime
    provider_status: str | None = None
    progress: float | None = None
    outputs: tuple[Output, ...] = ()
    failures: int = 0
    problem_code: str | None = None
    problem_run: int = 0
    answered_late: bool = False
    """Whether the provider answered about it since the timeout: nothing is given up without that."""
    longest: float = 60.0
    submitted_at: datetime | None = None


class Decision(NamedTuple):
    """Everything that must be written after one observation. Fields that are None change nothing."""

    to: State | None = None
    provider_status: str | None = None
    progress: float | None = None
    outputs: tuple[Output, ...] | None = None
    error: Failure | None = None
    problem: Problem | None = None
    failures: int = 0
    problem_run: int = 0
    answered_late: bool = False
    wait: float | None = None
    """Seconds to the next poll where that differs from what the claim arranged."""
    over: bool = False
    """Nothing is left to ask: the generation leaves the schedule."""

    @property
    def rewrites(self) -> bool:
        """Whether the generation itself changes, not only its schedule."""
        return self.to is not None or self.provider_status is not None or self.outputs is not None or self.over


UNCHANGED = Decision()
"""What nearly all answers come to: nothing is written."""


def decide(known: Known, seen: Observation, *, now: datetime, roll: float, outage: bool = False) -> Decision:
    """Judge one observation. `roll` is uniform in [0, 1).

    `outage`: more than half of the credential's generations are answered with not-found, so that it proves nothing about one.
    """
    match seen:
        case Seen(state=State.COMPLETED, outputs=()):
            says = f"the provider says {seen.status!r} but gives no output URL"
            missing = Problem(ProblemCode.NO_OUTPUT, says, status=seen.status)
            return _failed_observation(known, missing, now, roll, outage=outage)
        case Seen(state=State.COMPLETED | State.FAILED | State.CANCELLED):
            return _ended(known, seen)
        case Seen():
            return _pending(known, seen, now, roll)
        case Problem():
            return _failed_observation(known, seen, now, roll, outage=outage)


def says_nothing_new(
    seen: Observation, *, state: str, provider_status: str | None, progress: float | None, failures: int
) -> bool:
    """Whether `decide` would say UNCHANGED of a generation before its timeout, from the few things that it turns on then.

    Asked first, because it saves making the rest: most answers are so.
    """
    return (
        isinstance(seen, Seen)
        and seen.status == provider_status
        and seen.state in _PENDING
        and (seen.state == state or seen.state not in NEXT[State(state)])
        and seen.progress == progress
        and not seen.outputs
        and not failures
    )


_PENDING = frozenset({State.QUEUED, State.PROCESSING})


def _ended(known: Known, seen: Seen) -> Decision:
    error = seen.error
    if error is None and seen.state is not State.COMPLETED:
        code = ErrorCode.CANCELLED_BY_PROVIDER if seen.state is State.CANCELLED else ErrorCode.PROVIDER_ERROR
        error = Failure(code, "the provider gave no reason", seen.status)
    return Decision(
        to=seen.state if seen.state in NEXT[known.state] else None,
        provider_status=seen.status,
        progress=1.0 if seen.state is State.COMPLETED else None,
        outputs=seen.outputs,
        error=error,
        over=True,
    )


def _pending(known: Known, seen: Seen, now: datetime, roll: float) -> Decision:
    passed = now >= known.timeout_at
    to = seen.state if seen.state in NEXT[known.state] else None
    if passed and known.state is not State.TIMED_OUT:
        to = State.TIMED_OUT
    return Decision(
        to=to,
        provider_status=seen.status if seen.status != known.provider_status else None,
        progress=seen.progress if seen.progress != known.progress else None,
        outputs=seen.outputs if seen.outputs and seen.outputs != known.outputs else None,
        answered_late=passed,
        wait=_late_wait(known, now, roll) if passed else None,
        over=passed and now >= known.give_up_at,
    )


def _failed_observation(known: Known, problem: Problem, now: datetime, roll: float, *, outage: bool) -> Decision:
    failures = known.failures + 1
    # The answers of an outage prove nothing: when it ends, the run starts anew, else all that are still missing would fail at once.
    proof = not (outage and problem.code is ProblemCode.NOT_FOUND)
    run = known.problem_run + 1 if known.problem_code == problem.code and proof else 1
    if problem.code is ProblemCode.NOT_FOUND and proof and _is_gone(known, run, now):
        return Decision(
            to=State.FAILED,
            error=Failure(ErrorCode.NOT_FOUND, problem.message),
            problem=problem,
            failures=failures,
            problem_run=run,
            over=True,
        )
    passed = now >= known.timeout_at
    answered = known.answered_late or (passed and proof and problem.code in _ANSWERS)
    # A Retry-After of 0, or a time that is past, is no wish for another question at once.
    wait = problem.retry_after and backoff.honoured(problem.retry_after, roll)
    wait = wait or backoff.after_failures(failures, known.longest, roll)
    return Decision(
        to=State.TIMED_OUT if passed and known.state is not State.TIMED_OUT else None,
        provider_status=problem.status if problem.status != known.provider_status else None,
        problem=problem,
        failures=failures,
        problem_run=run,
        answered_late=answered,
        wait=max(wait, _late_wait(known, now, roll)) if passed else _until(known.timeout_at, wait, now),
        over=passed and now >= known.give_up_at and answered,
    )


_ANSWERS = frozenset({ProblemCode.NOT_FOUND, ProblemCode.NO_OUTPUT, ProblemCode.UNKNOWN_STATUS})
"""Problems with what the provider said of this task, not with reaching it or being let in."""


def _is_gone(known: Known, run: int, now: datetime) -> bool:
    never_seen = known.provider_status is None
    return never_seen and run >= NOT_FOUND_RUN and now - known.registered_at >= NOT_FOUND_GRACE


def _late_wait(known: Known, now: datetime, roll: float) -> float:
    return backoff.late_check((now - (known.submitted_at or known.registered_at)).total_seconds(), roll)


def _until(deadline: datetime, wait: float, now: datetime) -> float:
    # A Retry-After may exceed the timeout; the deadline itself then falls at the next look, which is soon enough for a soft state.
    left = (deadline - now).total_seconds()
    return wait if wait <= left or wait > backoff.MINUTE else max(left, 0.0)
