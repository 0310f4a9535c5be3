"""Three hundred generations with every misbehaviour in, through real workers: each ends rightly, and nobody is asked too often."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from tracker import wiring
from tracker.core.generation import State
from tracker.core.lifecycle import NEXT
from tracker.core.schedule import Clock
from tracker.services.forms import CredentialForm, RegistrationForm
from tracker.settings import Settings
from tracker.simulator.misbehaviour import MISBEHAVIOURS, Scope
from tracker.store.generations import Filters

from .conftest import Receiver, Simulator, Workers, until

COUNT = 300
REASON = "the lights went out"
SLACK = 0.1
"""Seconds between what the schedule notes and what the relay sees that differ from one question to the next."""
HANDED_OVER = 0.5 + SLACK
"""The same where the next time counts from the claim: its batch may wait so long for its worker while those before it hang."""
TIMEOUT = 20
"""Seconds that those may take which never end: the others are through long before."""


@dataclass(frozen=True)
class Expected:
    """How a misbehaving generation must end."""

    state: str = "completed"
    code: str = ""
    message: str = ""
    problem: str = ""
    """The code of the last problem that must be kept."""
    failing: int = 0
    """How many answers at its beginning are failed observations; each is followed by the wait of its number."""
    account: str = "default"
    queue: float = 1.0
    duration: float = 3.0
    """Seconds; longer where a misbehaviour in the middle must be seen."""
    price: float | None = None


def _failed(message: str = REASON, code: str = "provider_error") -> Expected:
    return Expected("failed", code, message)


FAULTS: dict[str, Expected] = {
    "": Expected(),
    # On the wire. One that hangs is claimed again meanwhile; it must hang until its first deadline is over, for an answer in between counts more.
    "slow_2x_2s": Expected(),
    "drip_1x_0.001s": Expected(),
    "hang_3x": Expected(problem="timeout", failing=1, duration=22),
    "reset_2x": Expected(problem="unreadable", failing=2),
    "garbage_2x": Expected(problem="unreadable", failing=2),
    "cutbody_2x": Expected(problem="unreadable", failing=2),
    "halfclose_2x": Expected(problem="unreadable", failing=2),
    "huge_1x": Expected(problem="too_large", failing=1),
    "bomb_1x": Expected(problem="unreadable", failing=1),
    # By status.
    "http500_2x": Expected(problem="http_error", failing=2),
    "http502": Expected(problem="http_error", failing=3),
    "http503_2x": Expected(problem="http_error", failing=2),
    "http504_2x": Expected(problem="http_error", failing=2),
    "http429_1x_1s": Expected(problem="rate_limited", account="limited"),
    "http429bare_1x": Expected(problem="rate_limited", failing=1, account="limited"),
    "quota403_1x": Expected(problem="out_of_quota", account="quota"),
    "quota429_1x": Expected(problem="out_of_quota", account="quota"),
    "forbidden_1x": Expected(problem="unauthorized", account="refused"),
    "unauthorized_12s": Expected(problem="unauthorized", account="refused"),
    "redirect_1x": Expected(problem="http_error", failing=1),
    "notfound400_12s": Expected(problem="not_found", failing=1),
    "notfound404_12s": Expected(problem="not_found", failing=1),
    "missing400": Expected("timed_out", problem="not_found", failing=1000),
    "missing404": Expected("timed_out", problem="not_found", failing=1000),
    # By content.
    "truncated_2x": Expected(problem="unreadable", failing=2),
    "empty_2x": Expected(problem="not_found", failing=2),
    "wrongtype": Expected(),
    "page_2x": Expected(problem="unreadable", failing=2),
    "list_2x": Expected(problem="unreadable", failing=2),
    "nostate_2x": Expected(problem="unreadable", failing=2),
    "wrongid_2x": Expected(problem="unreadable", failing=2),
    # Of the whole life.
    "failed": _failed(),
    "failreason": _failed(),
    "statereason": _failed(),
    "errormessage": _failed(),
    "moderated": _failed("content moderation: the prompt was flagged as unsafe", "moderated"),
    "mute": _failed("the provider says 'failed' and gives no reason"),
    "neverends": Expected("timed_out"),
    "backwards": Expected(duration=6, price=0.02),
    "unknown": Expected(problem="unknown_status", failing=1, queue=0, duration=12),
    "unknown_always": Expected("timed_out", problem="unknown_status", failing=1),
    "nourl_16s": Expected(problem="no_output"),
    "nourl_always": Expected("timed_out", problem="no_output"),
    "nodownload": Expected(),
}


def test_no_misbehaviour_of_answers_and_lives_is_left_out() -> None:
    known = {name for name, row in MISBEHAVIOURS.items() if row.scope in {Scope.ANSWER, Scope.LIFE}}
    assert {name.partition("_")[0] for name in FAULTS if name} == known


@pytest.fixture
def accounts(services: wiring.Services, simulator: Simulator, account: UUID) -> UUID:
    """Accounts of their own for what befalls a whole account: it must not touch the others."""
    for name in {e.account for e in FAULTS.values()} - {"default"}:
        form = CredentialForm(
            providers=["luma"], base_url=simulator.url, api_key=name, requests_per_second=500, concurrency=200
        )
        services.credentials.put(account, name, form)
    simulator.call("faults", {"batch": "none"})  # asked singly, each id's questions can be counted
    return account


def _submit(simulator: Simulator) -> dict[str, str]:
    """Task ids with their misbehaviour, all of them mixed evenly."""
    names = [list(FAULTS)[i % len(FAULTS)] for i in range(COUNT)]
    made: dict[str, str] = {}
    for name in names:
        fails = {"fail_reason": REASON} if FAULTS[name].message == REASON else {}
        wish = {"queue": FAULTS[name].queue, "duration": FAULTS[name].duration, "misbehaviour": name, **fails}
        made[simulator.call("generations", wish)["id"]] = name
    return made


def _register(services: wiring.Services, project: UUID, made: dict[str, str], receiver: Receiver) -> None:
    # A clock of its own for each generation: it stays cold, so that the bound on the questions can be computed.
    forms = [
        RegistrationForm(
            provider="luma", task_id=task, credential=FAULTS[name].account, webhook_url=receiver.url, model=f"m{i}",
            poll_price=FAULTS[name].price, timeout=TIMEOUT if FAULTS[name].state == "timed_out" else 7200,
        )
        for i, (task, name) in enumerate(made.items())
    ]  # fmt: skip
    outcomes = services.registration.register_many(project, forms)
    assert all(getattr(o, "created", False) for o in outcomes)


def _all(services: wiring.Services, project: UUID) -> dict[str, Any]:
    found: list[Any] = []
    before = None
    while True:
        page, before = services.generations.page(project, Filters(before_id=before), 200)
        found += page
        if before is None:
            return {g.task_id: g for g in found}


def _settled(services: wiring.Services, project: UUID, made: dict[str, str]) -> dict[str, Any]:
    """Every generation once all are where they must come to; paused accounts are resumed, as their owner would."""
    for credential in services.credentials.all(project):
        if credential.health.paused:
            services.credentials.resume(project, credential.name)
    found = _all(services, project)
    return found if all(found[task].state == FAULTS[name].state for task, name in made.items()) else {}


@pytest.mark.timeout(420)
def test_three_hundred_generations_of_every_misbehaviour(
    services: wiring.Services, simulator: Simulator, receiver: Receiver, workers: Workers, accounts: UUID
) -> None:
    workers.ready()
    made = _submit(simulator)
    _register(services, accounts, made, receiver)

    def told() -> str:
        found = _all(services, accounts)
        return str({(n, found[t].state, str(found[t].last_problem)) for t, n in made.items() if found[t].state != FAULTS[n].state})  # fmt: skip

    try:
        ended = until(lambda: _settled(services, accounts, made), 150, "all generations where they must come to")
    except AssertionError as late:
        raise AssertionError(f"{late}: {told()}") from None
    until(lambda: len(receiver.got) >= COUNT, 60, "a webhook for each end")

    _check_ends(ended, made)
    _check_transitions(services, accounts, ended)
    _check_webhooks(receiver, ended)
    _check_questions(simulator, services.settings, ended, made)
    _check_punctuality(simulator, made)


def _check_ends(ended: dict[str, Any], made: dict[str, str]) -> None:
    for task, name in made.items():
        g, expected = ended[task], FAULTS[name]
        assert (g.error.code if g.error else "", g.error.message if g.error else "") == (
            expected.code,
            expected.message,
        ), name
        problem = g.last_problem.code if g.last_problem else ""
        assert problem == expected.problem, (name, g.last_problem)
        assert (g.finished_at is None) == (g.state == "timed_out"), name
        assert bool(g.outputs) == (g.state == "completed"), name


def _check_transitions(services: wiring.Services, project: UUID, ended: dict[str, Any]) -> None:
    for g in ended.values():
        moves = services.generations.transitions(project, g.id)
        states = [m.to_state for m in moves]
        assert (states[0], states[-1]) == (State.REGISTERED, g.state)
        assert [m.from_state for m in moves[1:]] == states[:-1], "each move begins where the one before it ended"
        assert all(after in NEXT[before] for before, after in pairwise(states))
        assert [m.sequence for m in moves] == list(range(1, len(moves) + 1))


def _check_webhooks(receiver: Receiver, ended: dict[str, Any]) -> None:
    assert receiver.wrong == []
    assert len(receiver.ids) == len(set(receiver.ids)) == len(ended), "one webhook for each end, and none twice"
    said = {event["data"]["task_id"]: event["type"] for event in receiver.got}
    assert said == {task: f"generation.{g.state}" for task, g in ended.items()}


def _check_questions(simulator: Simulator, settings: Settings, ended: dict[str, Any], made: dict[str, str]) -> None:
    """The relay's own count: never more than the claims, and never sooner than the schedule allows."""
    asked: Counter[str] = Counter()
    for task, name in made.items():
        g, times = ended[task], simulator.call(f"generations/{task}")["queries"]
        assert 1 <= len(times) <= g.polls, (name, times, g.polls)
        asked[FAULTS[name].account] += len(times)
        for number, (before, after) in enumerate(pairwise(times), start=1):
            # After a failure the wait begins with the answer, else with the claim.
            slack = SLACK if FAULTS[name].problem else HANDED_OVER
            assert after - before >= _shortest(settings, g, FAULTS[name], number, after) - slack, (name, number, times)
    print(f"asked {asked.total()} times about {COUNT} generations: {dict(asked)}")


def _shortest(settings: Settings, g: Any, expected: Expected, number: int, at: float) -> float:
    """The shortest wait, in seconds, that the rules allow after the answer of this number."""
    if expected.account in {"quota", "refused"} or expected.problem == "rate_limited":
        return 0.8  # a resumed account is asked at once; a Retry-After of one second is obeyed
    if g.timeout_at.timestamp() - 0.1 <= at:
        return 0.0  # the last look falls on the deadline
    backoff = 0.8 * 2.0 * 2 ** (min(number, expected.failing) - 1) if number <= expected.failing else 0.8 * 2.0
    pending = 0.9 * Clock().next_gap(0.0, g.poll_price or settings.poll_price, settings.poll_longest)
    return backoff if expected.problem else pending


def _check_punctuality(simulator: Simulator, made: dict[str, str]) -> None:
    """Those that behave are asked on time, although others hang: the second look of a cold clock is due after 5 to 6 seconds."""
    looks = [simulator.call(f"generations/{task}")["queries"] for task, name in made.items() if name == ""]
    waits = sorted(times[1] - times[0] for times in looks)
    print(f"second looks after {waits[0]:.1f} to {waits[-1]:.1f} s")
    assert waits[len(waits) // 2] < 10, waits
