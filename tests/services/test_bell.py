"""Rings: one message however often it is rung, none while somebody is awake, and never silence for long."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import redis
from kombu.common import ignore_errors

from tracker import bell, wiring
from tracker.embedded.ports import free_port, release
from tracker.embedded.valkey import Valkey

from .conftest import Place, until

KEY = "tracker:rung:webhook.send"


@pytest.fixture
def store(redis_url: str) -> Any:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def _messages(place: Place) -> int:
    return len(list(place.taken(bell.WEBHOOK)))


def _ring(services: wiring.Services) -> bool:
    return services.bell.ring(bell.SEND, bell.WEBHOOK, because="test")


def test_many_rings_are_one_message_until_somebody_answers(services: wiring.Services, place: Place) -> None:
    assert [_ring(services) for _ in range(3)] == [True, False, False]
    assert _messages(place) == 1
    services.bell.answered(bell.SEND)
    assert _ring(services)
    assert _messages(place) == 1


def test_who_is_awake_sees_rings_without_a_message(services: wiring.Services, place: Place) -> None:
    assert not services.bell.awake(bell.SEND)
    assert not _ring(services)
    assert _messages(place) == 0
    assert services.bell.awake(bell.SEND), "it was rung"
    assert not services.bell.awake(bell.SEND), "and seen"


def test_a_ring_at_the_moment_of_falling_asleep_is_not_lost(services: wiring.Services, place: Place) -> None:
    services.bell.awake(bell.SEND)
    _ring(services)
    assert services.bell.asleep(bell.SEND), "it stays awake for this one"
    services.bell.awake(bell.SEND)
    assert not services.bell.asleep(bell.SEND)
    assert _ring(services), "from here on a message is needed again"
    assert _messages(place) == 1


def test_rings_do_not_prolong_the_silence_of_the_dead(services: wiring.Services, store: Any) -> None:
    """A message that was lost silences rings for its own life, a process that died awake for a second: however often it is rung."""
    _ring(services)
    store.pexpire(KEY, 900)
    assert not _ring(services)
    assert 0 < store.pttl(KEY) <= 900
    services.bell.answered(bell.SEND)
    services.bell.awake(bell.SEND)
    assert not _ring(services)
    assert 0 < store.pttl(KEY) <= 1000


@contextmanager
def _tick(place: Place, seconds: float) -> Iterator[None]:
    """A tick goes on, from its first claim on, for as long as the block takes."""
    with ThreadPoolExecutor(1) as thread:
        ticking = thread.submit(place.services.polling.dispatch, stay=seconds)
        until(lambda: place.services.bell._redis.exists("tracker:rung:poll.dispatch"), "a tick that is awake")
        yield
        ticking.result()


def test_what_is_registered_during_a_tick_is_claimed_by_it_without_a_message(place: Place) -> None:
    with _tick(place, 2.0):
        for n in range(3):
            place.register(f"during-{n}")
            sleep(0.15)
    assert not list(place.taken(bell.DEFAULT))
    assert sum(len(polls) for _, polls in place.messages()) == 3


def test_what_is_registered_at_the_end_of_a_tick_is_left_to_a_message(place: Place, monkeypatch: Any) -> None:
    """The ring comes behind the last claim, and before the tick has said that it sleeps."""
    asleep = place.services.bell.asleep

    def registered_just_before(task: str) -> bool:
        place.register("at-the-end")
        until(lambda: place.services.bell._redis.get("tracker:rung:poll.dispatch") == bell.RUNG, "the ring")
        return asleep(task)

    monkeypatch.setattr(place.services.bell, "asleep", registered_just_before)
    assert place.services.polling.dispatch(stay=0.05) == 0
    assert len(list(place.taken(bell.DEFAULT))) == 1
    assert place.poll() == 1


def test_a_broker_that_dies_with_a_message_in_hand_kills_no_worker(tmp_path: Path) -> None:
    """A worker closes its connection twice then; by the second time the transport has forgotten where the broker was."""
    valkey = Valkey(tmp_path / "valkey", port=free_port(17932), password="word")
    valkey.start()
    try:
        app = bell.celery_app(valkey.url)
        app.send_task(bell.FETCH, queue=bell.DOWNLOAD)
        connection = app.connection_for_read()
        assert app.amqp.queues[bell.DOWNLOAD](connection.default_channel).get(accept=["json"]), (
            "taken, not acknowledged"
        )
        valkey.child.kill()
        connection.transport.client = None
        ignore_errors(connection, connection.close)
    finally:
        valkey.stop()
        release(valkey.port)


def test_without_redis_nobody_is_awake(services: wiring.Services, store: Any) -> None:
    store.set(KEY, "x")
    broken = bell.Bell(bell.publisher("redis://127.0.0.1:9"), "redis://127.0.0.1:9")
    assert not broken.awake(bell.SEND)
    assert not broken.asleep(bell.SEND)
    assert not broken.ring(bell.SEND, bell.WEBHOOK)
    broken.close()


def test_a_ring_for_later_goes_out_by_itself(services: wiring.Services, place: Place) -> None:
    services.bell.ring_soon(bell.SEND, bell.WEBHOOK, because="test")
    until(lambda: _messages(place) == 1, "a message")
