"""A poll worker that is dead or frozen is seen, although claims go on moving what is due."""

from __future__ import annotations

from typing import Any

from .conftest import Place, Relay

SLOW = {"poll_price": 60.0, "poll_longest": 60.0}


def untaken(place: Place) -> Any:
    return place.services.health.ready()["untaken"]


def dispatched(place: Place, seconds: float, step: float = 5.0) -> int:
    """So many seconds in which batches go out and nobody takes them."""
    sent = 0
    for _ in range(int(seconds / step)):
        sent += place.services.polling.dispatch()
        place.ahead(step)
    return sent


def test_batches_that_nobody_takes_are_noticed_while_nothing_is_late(place: Place, relay: Relay) -> None:
    for number in range(30):
        place.register(f"task-{number}")
    place.poll()
    place.ahead(20)
    assert dispatched(place, 25) >= 30
    assert untaken(place) is None, "not before 30 s"
    assert dispatched(place, 50) >= 30
    ready = place.services.health.ready()
    assert 70 < ready["untaken"] < 80
    assert (ready["healthy"], ready["lag"] < 20) == (False, True)
    [(_, gauge)] = place.services.health.figures()["tracker_poll_untaken_seconds"]
    assert gauge > 70
    place.services.health.stop("polls", "maintenance")
    assert untaken(place) is None, "stopped polls need no worker"
    place.services.health.resume("polls")
    place.messages()
    place.ahead(60)
    assert place.poll() == 30
    assert untaken(place) is None


def test_a_worker_that_never_took_any_is_noticed_too(place: Place) -> None:
    place.register("task-1")
    place.services.polling.dispatch()
    assert untaken(place) is None
    place.ahead(31)
    assert 31 < untaken(place) < 41


def test_long_gaps_are_no_silence(place: Place, relay: Relay) -> None:
    relay.says("task-1", "processing")
    place.register("task-1", **SLOW)
    place.poll()
    place.ahead(0.5)
    place.register("task-2", **SLOW)
    assert place.poll() == 1, "one that is taken within a second of the last sign leaves none"
    for _ in range(20):
        place.ahead(17)
        assert untaken(place) is None
        place.poll()
        assert untaken(place) is None
