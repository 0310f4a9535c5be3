"""Redis away: registering goes on without waiting for it, and what was registered meanwhile is tracked when it is back."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from .conftest import receiving, simulating, until
from .installation import Installation
from .verdict import check

MOST_WAITED = 1.5
"""Seconds that one registration may take at worst: one look at a server that does not answer, every few seconds."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """One for all: each test leaves it well, and `check` looks at everything since the beginning."""
    with simulating() as simulator, receiving() as receiver:
        folder = tmp_path_factory.mktemp("world")
        with Installation(folder, simulator, receiver).running() as installation:
            yield installation


def _registrations(world: Installation, count: int) -> list[float]:
    """The seconds that each of some registrations takes."""
    took = []
    for _ in range(count):
        began = time.monotonic()
        world.register(1, duration=1)
        took.append(time.monotonic() - began)
    return took


def _deep(world: Installation) -> dict[str, bool]:
    answer = world.api("GET", "/readyz") or {}
    return {name: bool(answer.get(name)) for name in ("redis", "broker")}


def _freeze(world: Installation) -> Callable[[], None]:
    assert world.valkey.process is not None
    pid = world.valkey.process.pid
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


def _kill(world: Installation) -> Callable[[], None]:
    world.valkey.child.kill()
    return world.valkey.start


@pytest.mark.parametrize("disappear", [_kill, _freeze], ids=["dead", "mute"])
def test_registered_while_redis_is_away_and_tracked_when_it_is_back(
    world: Installation, disappear: Callable[[Installation], Callable[[], None]]
) -> None:
    until(lambda: _deep(world) == {"redis": True, "broker": True}, 20, "everything is well")
    come_back = disappear(world)

    took = _registrations(world, 12)
    assert max(took) < MOST_WAITED, took
    assert sorted(took)[len(took) // 2] < 0.2, "most of them do not wait at all"
    assert _deep(world) == {"redis": False, "broker": False}
    assert world.api("GET", "/readyz?deep=1") is None, "503: a deep look fails on the broker"

    come_back()
    world.settle(120)
    check(world)
    assert _deep(world) == {"redis": True, "broker": True}
    print(f"registering took {max(took):.3f} s at most; settled {world.tally.settled_in:.1f} s after the return")


def test_workers_that_start_before_their_broker_begin_when_it_is_there(world: Installation) -> None:
    world.workers.stop()
    come_back = _kill(world)
    for name in list(world.workers.running):
        world.workers.start(name)
    until(lambda: world.api("GET", "/healthz"), 20, "the API starts without Redis")
    world.register(3, duration=1)
    come_back()
    world.settle(120)
    check(world)
