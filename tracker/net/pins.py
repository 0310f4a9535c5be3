"""Where names lead: answers of the name server that are used for a while, and renewed beside those who use them.

Belongs to one thread, save the look-ups themselves. Vets nothing: whoever connects does.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator

from tracker.core.addresses import Address
from tracker.net.failures import NetError
from tracker.net.resolve import Key, Resolver

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
        self._asking: set[Key] = set()
        self._came: deque[tuple[Key, list[Address] | NetError]] = deque()

    def __len__(self) -> int:
        return len(self._pins)

    def find(self, key: Key, seconds: float, owner: Hashable) -> list[Address] | None:
        """What is known of a name; a look-up within `seconds` begins where that is nothing, or not of late."""
        at, addresses = self._pins.get(key, (0.0, None))
        age = time.monotonic() - at
        if addresses is not None and age < PINNED_SECONDS:
            return addresses
        if key not in self._asking:
            self._asking.add(key)
            threading.Thread(target=self._ask, args=(key, seconds, owner), daemon=True, name="pin").start()
        return addresses if age < RENEWED_SECONDS else None

    def _ask(self, key: Key, seconds: float, owner: Hashable) -> None:
        try:
            self._came.append((key, self._resolver.addresses(*key, seconds, owner)))
        except NetError as wrong:
            self._came.append((key, wrong))
        self._ring()

    def answers(self) -> Iterator[tuple[Key, list[Address] | NetError]]:
        """The answers that came since the last call, each once."""
        while self._came:
            key, found = self._came.popleft()
            self._asking.discard(key)
            if not isinstance(found, NetError):
                self._keep(key, found)
            yield key, found

    def _keep(self, key: Key, found: list[Address]) -> None:
        now = time.monotonic()
        self._pins.pop(key, None)
        while self._pins and (len(self._pins) >= MOST or now - next(iter(self._pins.values()))[0] >= RENEWED_SECONDS):
            del self._pins[next(iter(self._pins))]
        self._pins[key] = (now, found)
