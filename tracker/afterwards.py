"""What need not be done before a caller is answered. Knows nothing of the work."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Condition, Thread

log = logging.getLogger(__name__)


class Afterwards:
    """Does small things in a thread of its own, one after the other; what is asked for again before its turn is done once.

    For what may be lost with the process: nothing of it is kept. The thread begins with the first thing there is to do, so after a fork.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._asked: dict[str, Callable[[], object]] = {}
        self._thread: Thread | None = None
        self._closed = False

    def do(self, name: str, work: Callable[[], object]) -> None:
        """Do `work` soon; of what is asked for under one `name` meanwhile, only the last. After `close`, at once."""
        with self._changed:
            if not self._closed:
                self._asked[name] = work
                if self._thread is None:
                    self._thread = Thread(target=self._serve, name="afterwards", daemon=True)
                    self._thread.start()
                self._changed.notify()
                return
        work()

    def close(self, patience: float) -> None:
        """Do what was asked for, `patience` seconds long at most."""
        with self._changed:
            self._closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(patience)

    def _serve(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except Exception:
                log.exception("what was left for later failed")

    def _next(self) -> Callable[[], object] | None:
        """What is to be done next, first come, first served; None when it is over."""
        with self._changed:
            while not self._asked and not self._closed:
                self._changed.wait()
            return self._asked.pop(next(iter(self._asked))) if self._asked else None
