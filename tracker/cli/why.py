"""Why a generation is not asked about at this moment, in sentences. Reads only what services show."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracker.cli.render import ago
from tracker.core.generation import Generation, State
from tracker.core.lifecycle import FINAL
from tracker.errors import NotFoundError

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
    found = [*_stopped(session), *_account(session, g), *_problem(session, g)]
    if g.state is State.TIMED_OUT:
        found.append("its timeout has passed: late checks are seldom, and come after everything else")
    return [*found, _due(session, g, explained=bool(found))]


def _stopped(session: Session) -> list[str]:
    reason = session.services.health.stopped().get("polls")
    return (
        [] if reason is None else [f"polls are stopped for the whole installation ({reason}); `tracker resume polls`"]
    )


def _account(session: Session, g: Generation) -> list[str]:
    try:
        account = session.services.credentials.get(session.project_id, g.credential)
    except NotFoundError:
        return [f"its credential {g.credential!r} was deleted"]
    now = session.now()
    if account.state == "paused":
        probe = f"one probe {ago(account.probe_at, now)}; " if account.probe_at else ""
        return [
            f"credential {g.credential!r} is paused ({account.paused_reason}); {probe}`tracker credentials resume {g.credential}`"
        ]
    if account.blocked_until is not None and account.blocked_until > now:
        return [
            f"circuit: the provider of credential {g.credential!r} is silent or wants us to wait, until {ago(account.blocked_until, now)}"
        ]
    return []


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
    return f"{late}: the budget of credential {g.credential!r} is used up by others, or all poll workers are busy"
