"""Rings: one message however often it is rung, none while somebody is awake, and never silence for long."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from tracker import bell, wiring

from .conftest import Place

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


def test_without_redis_nobody_is_awake(services: wiring.Services, store: Any) -> None:
    store.set(KEY, "x")
    broken = bell.Bell(bell.publisher("redis://127.0.0.1:9"), "redis://127.0.0.1:9")
    assert not broken.awake(bell.SEND)
    assert not broken.asleep(bell.SEND)
    assert not broken.ring(bell.SEND, bell.WEBHOOK)
    broken.close()
