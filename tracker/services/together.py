"""Callers with one item each, served together: what comes while others are served joins the next turn. Knows nothing of the work.

Under a steady trickle every caller has a turn of its own. In a rush a turn takes many, which costs little more than one: the rush is over
after two turns, where one by one it would go on for as many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

AT_ONCE = 2
"""Turns under way at the same time: one can use the processor while another waits for the disk."""
MOST = 100
"""Items of one turn."""


class Together(Generic[Item, Result]):
    """`work` gets the items of a turn and returns one result for each; what it raises is raised for each of them."""

    def __init__(self, work: Callable[[list[Item]], Sequence[Result]], *, at_once: int = AT_ONCE) -> None:
        self._work, self._free = work, at_once
        self._lock = Lock()
        # Each with what its caller waits for: its result, or None when the next turn is its own to take.
        self._waiting: deque[tuple[Item, Future[tuple[Result] | None]]] = deque()

    def do(self, item: Item) -> Result:
        """The result for this item. The thread of one caller does the work for all in its turn, and then only answers its own."""
        mine: Future[tuple[Result] | None] = Future()
        with self._lock:
            takes_turn = self._free > 0
            if takes_turn:
                self._free -= 1
            else:
                self._waiting.append((item, mine))
        served = None if takes_turn else mine.result()
        return self._take_turn(item) if served is None else served[0]

    def _take_turn(self, item: Item) -> Result:
        with self._lock:
            others = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST - 1))]
        try:
            result, *results = self._work([item, *(other for other, _ in others)])
            served = list(zip(others, results, strict=True))
        except BaseException as wrong:
            for _, waits in others:
                waits.set_exception(wrong)
            raise
        else:
            for (_, waits), theirs in served:
                waits.set_result((theirs,))
            return result
        finally:
            self._hand_on()

    def _hand_on(self) -> None:
        with self._lock:
            if self._waiting:
                _, its_turn = self._waiting.popleft()
                its_turn.set_result(None)
            else:
                self._free += 1
