"""Callers that are served together."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Lock, Semaphore

import pytest

from tracker.services.together import MOST, Together

from .conftest import until


class Desk:
    """Work of which each turn takes until it is let go on, and which remembers its turns."""

    def __init__(self) -> None:
        self.turns: list[list[int]] = []
        self._go_on = Semaphore(0)
        self._lock = Lock()

    def serve(self, items: list[int]) -> list[int]:
        with self._lock:
            self.turns.append(items)
        assert self._go_on.acquire(timeout=10)
        if -1 in items:
            raise ValueError("minus one")
        return [item * 10 for item in items]

    def let_go_on(self, turns: int = 1000) -> None:
        self._go_on.release(turns)


def test_who_comes_alone_has_a_turn_of_his_own() -> None:
    desk = Desk()
    desk.let_go_on()
    together = Together(desk.serve)
    assert [together.do(item) for item in (1, 2, 3)] == [10, 20, 30]
    assert desk.turns == [[1], [2], [3]]


def test_those_who_come_meanwhile_share_the_next_turn_and_each_gets_his_own_result() -> None:
    desk = Desk()
    together = Together(desk.serve, at_once=2)
    with ThreadPoolExecutor(40) as threads:
        served = [threads.submit(together.do, item) for item in range(40)]
        until(lambda: len(desk.turns) == 2 and len(together._waiting) == 38, "two turns run, the others wait")
        desk.let_go_on()
        assert [one.result(10) for one in served] == [item * 10 for item in range(40)]
    assert sorted(item for turn in desk.turns for item in turn) == list(range(40))
    assert len(desk.turns) <= 4
    # All are free again: the next ones wait for nobody.
    assert together.do(7) == 70
    assert desk.turns[-1] == [7]


def test_a_turn_is_bounded() -> None:
    desk = Desk()
    together = Together(desk.serve, at_once=1)
    with ThreadPoolExecutor(MOST + 21) as threads:
        served = [threads.submit(together.do, item) for item in range(MOST + 21)]
        until(lambda: len(together._waiting) == MOST + 20, "one turn runs, the others wait")
        desk.let_go_on()
        assert {one.result(10) for one in served} == {item * 10 for item in range(MOST + 21)}
    assert [len(turn) for turn in desk.turns] == [1, MOST, 20]


def test_what_a_turn_raises_is_raised_for_each_of_it_and_the_next_turn_goes_on() -> None:
    desk = Desk()
    together = Together(desk.serve, at_once=1)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(together.do, 1)
        until(lambda: desk.turns == [[1]], "the first turn runs")
        others = [threads.submit(together.do, item) for item in (-1, 2)]
        until(lambda: len(together._waiting) == 2, "the others wait")
        desk.let_go_on()
        assert first.result(10) == 10
        for one in others:
            with pytest.raises(ValueError, match="minus one"):
                one.result(10)
    assert together.do(3) == 30


def test_nobody_works_for_others_once_his_own_turn_is_over() -> None:
    desk = Desk()
    together = Together(desk.serve, at_once=1)
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(together.do, 1)
        until(lambda: desk.turns == [[1]], "the first turn runs")
        others = [threads.submit(together.do, item) for item in (2, 3)]
        until(lambda: len(together._waiting) == 2, "the others wait")
        desk.let_go_on(1)
        assert first.result(10) == 10
        until(lambda: len(desk.turns) == 2, "the others have their turn")
        assert not any(one.done() for one in others)
        desk.let_go_on()
        assert [one.result(10) for one in others] == [20, 30]
