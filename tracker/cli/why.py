"""Why a generation is not asked about at this moment, in sentences. Reads only what services show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.cli.render import ago
from tracker.cli.work import budget
from tracker.core.generation import Generation, State
from tracker.core.lifecycle import FINAL

if TYPE_CHECKING:
    from tracker.cli.session import Session

LATE = 5.0
"""Seconds after which a due poll that was not made needs an explanation."""


def reasons(session: Session, g: Generation) -> list[str]:
    """Every reason, the strongest first; the last one says when the next poll is due."""
    if g.state in FINAL:
        return [f"it is {g.state}, and that is final; nobody is asked any more"]
    if g.next_poll_at is None:
        return ["it was given up: nothing was found until give_up_at; `tracker poll` asks once more"]
    found = [
        *_stopped(session),
        *_untaken(session),
        *_account(session, g),
        *_lease(session, g),
        *_problem(session, g),
    ]
    if g.state is State.TIMED_OUT:
        found.append("its timeout has passed: late checks are seldom, and come after everything else")
    return [*found, _due(session, g, explained=bool(found))]


def _stopped(session: Session) -> list[str]:
    reason = session.services.health.stopped().get("polls")
    return (
        [] if reason is None else [f"polls are stopped for the whole installation ({reason}); `tracker resume polls`"]
    )


def _untaken(session: Session) -> list[str]:
    seconds = session.services.health.ready()["untaken"]
    if seconds is None:
        return []
    return [f"batches have gone out for {seconds:.0f} s, and no poll worker has taken one; see `tracker doctor`"]


def _account(session: Session, g: Generation) -> list[str]:
    account = session.services.credentials.of_generation(g)
    if account is None:
        return [f"its credential {g.credential!r} was deleted"]
    now = session.now()
    if account.state == "paused":
        probe = f"one probe {ago(account.probe_at, now)}; " if account.probe_at else ""
        return [
            f"credential {g.credential!r} is paused ({account.paused_reason}); {probe}`tracker credentials resume {g.credential}`"
        ]
    return _held(session, g)


def _held(session: Session, g: Generation) -> list[str]:
    """What the account's circuit or budget holds back. A budget that is used up matters to what is due alone."""
    from tracker.store.lateness import Held

    now = session.now()
    [account] = session.services.health.accounts(g.credential_id)
    word = "circuit" if account.held in {Held.CIRCUIT, Held.ASKED_TO_WAIT} else "budget"
    due = g.next_poll_at is not None and g.next_poll_at <= now
    if account.held is None or (word == "budget" and not due):
        return []
    until = f", until {ago(account.until, now)}" if account.until is not None and account.until > now else ""
    return [f"{word}: of credential {account.name} {budget(account)[0]}{until}"]


def _lease(session: Session, g: Generation) -> list[str]:
    lease = session.services.health.lease(g.id)
    if lease is None:
        return []
    now = session.now()
    with_whom = "a worker asks about it" if lease.taken else "its batch waits for a worker"
    return [f"lease: it was claimed {ago(lease.since, now)}, and {with_whom}; the claim lapses {ago(lease.until, now)}"]


def _problem(session: Session, g: Generation) -> list[str]:
    problem = g.last_problem
    if problem is None or not problem.in_a_row:
        return []
    return [
        f"the last {problem.in_a_row} answers failed ({problem.code}), so it is asked less often; {ago(problem.at, session.now())}"
    ]


def _due(session: Session, g: Generation, *, explained: bool) -> str:
    now = session.now()
    if g.next_poll_at is None or g.next_poll_at > now:
        return f"the next poll is due {ago(g.next_poll_at, now)}; `tracker poll` asks now"
    if (now - g.next_poll_at).total_seconds() < LATE:
        return "it is due now: a worker takes it with its next batch"
    late = f"it was due {ago(g.next_poll_at, now)}"
    if explained:
        return late
    tick = session.services.health.ready()["tick_age"]
    if tick is None or tick > LATE:
        return f"{late}, and beat has not rung for {'ever' if tick is None else f'{tick:.0f} s'}: see `tracker doctor`"
    return f"{late}: all poll workers are busy; see `tracker doctor`"
