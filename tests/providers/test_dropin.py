"""What we say in a provider's place must be read by that provider's own module as what is meant."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest

from tracker.core.generation import State
from tracker.core.observation import Observation, Problem, ProblemCode, Seen
from tracker.providers import REGISTRY, get
from tracker.providers.base import Account, Response, Subject
from tracker.providers.dropin import DROP_INS, Body

every_one = pytest.mark.parametrize("name", DROP_INS)


def read(name: str, task_id: str, body: Body, status: int = 200) -> Observation:
    kind = next(iter(get(name).kinds), None)
    return get(name).read(Subject(task_id, kind), Response(status, {}, orjson.dumps(body), datetime.now(UTC)))


def test_every_provider_that_is_asked_with_get_has_one() -> None:
    methods = {name: provider.question(Account("", "key"), Subject("1")).method for name, provider in REGISTRY.items()}
    assert {name for name, method in methods.items() if method == "GET"} == DROP_INS.keys()


@every_one
def test_a_task_that_waits_is_read_as_waiting(name: str) -> None:
    seen = read(name, "task-1", DROP_INS[name].waiting("task-1"))
    assert isinstance(seen, Seen)
    assert seen.state in {State.QUEUED, State.PROCESSING} if name == "veo" else seen.state is State.QUEUED
    other = read(name, "task-2", DROP_INS[name].waiting("task-1"))
    assert isinstance(other, Problem) or name == "yunwu", "the answer says whom it is about"


@every_one
@pytest.mark.parametrize(("told", "code"), [("missing", ProblemCode.NOT_FOUND), ("refused", ProblemCode.UNAUTHORIZED)])
def test_a_missing_task_and_a_wrong_key_are_read_as_such(name: str, told: str, code: ProblemCode) -> None:
    status, body = getattr(DROP_INS[name], told)
    seen = read(name, "task-1", body, status)
    assert isinstance(seen, Problem)
    assert seen.code is code


@every_one
def test_the_path_is_the_providers_own(name: str) -> None:
    provider = get(name)
    kinds = provider.kinds[:1] or (None,)
    asked = provider.question(Account("", "key"), Subject("task-1", kinds[0])).url.partition("?")[0]
    filled = [path.replace("{task_id:path}", "task-1").replace("{task_id}", "task-1") for path in DROP_INS[name].paths]
    filled = [path.replace("{kind}", kinds[0] or "") for path in filled]
    assert asked in {path.removeprefix(f"/{name}") for path in filled} | set(filled)
