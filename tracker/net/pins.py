"""Where names lead: answers of the name server that are used for a while, and renewed beside those who use them.

Belongs to one thread, save the look-ups themselves. Vets nothing: whoever connects does.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future

from tracker.core.addresses import Address
from tracker.net.failures import NetError
from tracker.net.resolve import Key, Resolver, read

PINNED_SECONDS = 30.0  # how long an answer is used as it is; it is connected to, whatever the name says by then
RENEWED_SECONDS = (
    300.0  # until then it is used while a new one is asked for: slow names of others take nothing from this one
)
MOST = 4096  # names remembered


class Pins:
    """`ring` is called from another thread when an answer came: `answers` has it then."""

    def __init__(self, resolver: Resolver, ring: Callable[[], None]) -> None:
        self._resolver, self._ring = resolver, ring
        self._pins: dict[Key, tuple[float, list[Address]]] = {}  # oldest first
        self._waiting: dict[Key, Hashable] = {}  # names that there was no place for yet, with their owners
        self._asked: dict[Key, Future[list[str]]] = {}
        self._came: deque[Key] = deque()

    def __len__(self) -> int:
        return len(self._pins)

    def find(self, key: Key, owner: Hashable) -> list[Address] | None:
        """What is known of a name; where that is nothing, or not of late, it is looked up."""
        at, addresses = self._pins.get(key, (0.0, None))
        age = time.monotonic() - at
        if addresses is not None and age < PINNED_SECONDS:
            return addresses
        if key not in self._asked and key not in self._waiting:
            self._waiting[key] = owner
            self._ask(key)
        return addresses if age < RENEWED_SECONDS else None

    def drop(self, key: Key) -> None:
        """Nobody waits for this name any more: unless its look-up has begun, there is none."""
        self._waiting.pop(key, None)

    def _ask(self, key: Key) -> None:
        answer = self._resolver.begin(*key, self._waiting[key])
        if answer is not None:
            del self._waiting[key]
            self._asked[key] = answer
            answer.add_done_callback(lambda _: self._answered(key))

    def _answered(self, key: Key) -> None:
        self._came.append(key)
        self._ring()

    def answers(self) -> Iterator[tuple[Key, list[Address] | NetError]]:
        """The answers that came since the last call, each once."""
        if not self._came:
            return
        for key in list(self._waiting):
            self._ask(key)
        while self._came:
            key = self._came.popleft()
            try:
                found = read(key[0], self._asked.pop(key), 0.0)
            except NetError as wrong:
                yield key, wrong
            else:
                self._keep(key, found)
                yield key, found

    def _keep(self, key: Key, found: list[Address]) -> None:
        now = time.monotonic()
        self._pins.pop(key, None)
        while self._pins and (len(self._pins) >= MOST or now - next(iter(self._pins.values()))[0] >= RENEWED_SECONDS):
            del self._pins[next(iter(self._pins))]
        self._pins[key] = (now, found)
