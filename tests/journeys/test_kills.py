"""Any process killed in the middle: every generation reaches its right end, once, with its copies and its webhooks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tracker import bell, wiring
from tracker.services.forms import RegistrationForm
from tracker.store.due import SHORTEST_CLAIM

from .conftest import Receiver, Simulator, Workers, until
from .installation import VICTIMS, Installation
from .verdict import check

Message = list[Any]
LONGER_THAN_A_POLLS_CLAIM = SHORTEST_CLAIM + 1.0


@pytest.fixture
def world(tmp_path: Path, simulator: Simulator, receiver: Receiver) -> Iterator[Installation]:
    with Installation(tmp_path, simulator, receiver, lapsing=True).running() as installation:
        yield installation


@pytest.mark.timeout(420)  # on a busy machine
def test_every_process_killed_once(world: Installation) -> None:
    order = [*VICTIMS, "api"]  # before and after its commit
    random.Random(1).shuffle(order)
    for victim in order:
        world.register(6, duration=2)
        world.kill(victim)
    world.flush()
    world.freeze("poll", LONGER_THAN_A_POLLS_CLAIM)
    world.settle(180)
    figures = check(world)
    assert world.tally.unheard == 1
    print(f"{figures}, settled {world.tally.settled_in:.0f} s after the last blow; {world.tally.refused} calls refused")


def _claimed(services: wiring.Services) -> Message | None:
    """What a dispatch would put into one message."""
    portion = services.polling._claim()
    return [str(portion.batch), *portion.claimed.polls] if portion.claimed else None


def _flying(services: wiring.Services) -> bool:
    with services.database.transaction() as tx:
        return bool(tx.execute(text("SELECT EXISTS (SELECT FROM flights)")).scalar_one())


def _say(services: wiring.Services, task: str, queue: str, message: Message, times: int) -> None:
    for _ in range(times):
        assert services.bell.publish(task, queue, message, shown="again", expires=30)


def test_doubled_and_late_messages_do_no_harm(
    services: wiring.Services, simulator: Simulator, receiver: Receiver, workers: Workers, account: UUID
) -> None:
    workers.ready()
    for name in ("beat", "default"):  # from here on nobody claims polls but the test
        workers.kill(name)
    task = simulator.call("generations", {"queue": 0, "duration": 7})["id"]
    form = RegistrationForm(provider="luma", task_id=task, webhook_url=receiver.url, download=["video"], poll_longest=5)
    g = services.registration.register(account, form).generation

    first = until(lambda: _claimed(services), 10, "the first poll is due")
    _say(services, bell.ASK, bell.POLL, first, times=2)
    until(lambda: services.generations.get(account, g.id).state == "processing", 15, "it was asked")
    second = until(lambda: _claimed(services), 15, "the second poll is due")
    _say(services, bell.ASK, bell.POLL, first, times=2)  # late: its claim has lapsed
    _say(services, bell.ASK, bell.POLL, second, times=2)
    while not services.generations.get(account, g.id).finished_at:
        _say(services, bell.ASK, bell.POLL, until(lambda: _claimed(services), 15, "the next poll is due"), times=2)
        until(lambda: not _flying(services), 15, "it was asked")
    _say(services, bell.SEND, bell.WEBHOOK, [], times=3)
    _say(services, bell.FETCH, bell.DOWNLOAD, [], times=3)
    until(lambda: receiver.of("artifacts.done"), 15, "the copy was stored and told")

    moves = services.generations.transitions(account, g.id)
    assert [m.to_state for m in moves] == ["registered", "processing", "completed"]
    truth = simulator.call(f"generations/{task}")
    polls = services.generations.get(account, g.id).polls
    assert len(truth["queries"]) == polls, "each claim asks once, however often its message comes; a lapsed one never"
    assert truth["fetches"]["video.mp4"] == 1
    assert len(receiver.ids) == len(set(receiver.ids)) == 3, "completed, artifact.stored, artifacts.done: once each"
