"""Threads that see slow batches through, so that a relay that hangs keeps nobody else's polls waiting. Knows nothing of what they do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import BoundedSemaphore

from tracker.services.priority import POLLS, give_way

log = logging.getLogger(__name__)

THREADS = 16
"""Batches under way in one process. Almost all of them only wait: for the last answer of somebody slow."""
MOST_SLOW = THREADS // 2
"""Batches that may be open for long before those whose answers take so long have to wait: the others find threads then.

An account shows itself within a second, in which up to ten batches leave, over all processes. Fewer, and an account of which one task in
twenty hangs keeps its own others waiting now and then, for up to the deadline of an answer.
"""
PATIENCE = 0.3
"""Seconds for which the caller stays with a large batch: by then a relay that takes 200 ms has answered it, and to have several open costs
more for each poll (a tenth at 0.25 s and half as many in flight, measured). Who is slower keeps the process from others no longer."""
LEAST_PATIENCE = 0.1
"""The same for a small one. If it takes longer somebody is slow, and others wait for the caller: of three hundred with every misbehaviour,
on a busy machine, batches waited for up to 0.65 s where the caller stayed for half a second, and for 0.15 with this (measured)."""
LARGE = 2000
"""Polls that keep a process at work for about as long as PATIENCE."""
LOOK = 0.2
"""Seconds between two looks whether this process ends, while all threads are taken."""


def patience(polls: int) -> float:
    """Seconds for which the caller stays with a batch of so many polls: as long as it may keep this process at work."""
    return max(LEAST_PATIENCE, min(1.0, polls / LARGE) * PATIENCE)


class Crew:
    """Begins with its first work, behind any fork."""

    def __init__(self, threads: int = THREADS) -> None:
        self._threads, self._room = threads, BoundedSemaphore(threads)
        self._executor: ThreadPoolExecutor | None = None
        self._under_way: set[Future[object]] = set()
        self._stopping = False

    def see_through(self, work: Callable[[], object], patience: float = PATIENCE) -> bool:
        """Run `work`; False when it was left to a thread after `patience` seconds. What it raises in time is raised here.

        With more than half of the threads taken the caller stays for PATIENCE at least: who has more of them free takes what comes next.

        Once this process ends and all threads are taken, it is left undone: its claims lapse.
        """
        self._executor = self._executor or ThreadPoolExecutor(
            self._threads, "crew", initializer=give_way, initargs=(POLLS,)
        )
        # With all threads waiting the caller waits too: the backlog stays where it can be seen.
        while not self._room.acquire(timeout=LOOK):
            if self._stopping:
                return True
        future = self._executor.submit(work)
        self._under_way.add(future)
        future.add_done_callback(self._ended)
        if len(self._under_way) > self._threads // 2:
            patience = max(patience, PATIENCE)
        if wait([future], patience).not_done:
            future.add_done_callback(_report)
            return False
        future.result()
        return True

    def _ended(self, future: Future[object]) -> None:
        self._under_way.discard(future)
        self._room.release()

    def stop(self) -> None:
        """Wait no longer for a free thread: this process ends."""
        self._stopping = True

    def close(self, patience: float) -> None:
        """Wait for what is under way, at most `patience` seconds: what hangs longer ends with this process, and its claims lapse."""
        hanging = wait(list(self._under_way), patience).not_done
        if self._executor is not None:
            self._executor.shutdown(wait=not hanging)


def _report(future: Future[object]) -> None:
    wrong = future.exception()
    if wrong is not None:
        log.error("a slow batch failed; its polls are due again by themselves", exc_info=wrong)
