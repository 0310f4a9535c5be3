"""Asks many hosts at once, for polling: libcurl's multi interface on one thread, one fetcher per process.

Never follows a redirect, reads an environment proxy, keeps a cookie or lets an answer outgrow its cap.
docs/decisions/polling-transport.md says why libcurl.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from urllib.parse import urlsplit

import certifi
import pycurl

from tracker.core.addresses import DEFAULT_PORTS, Policy
from tracker.net import descriptors
from tracker.net.failures import WrongProcessError
from tracker.net.multi import Multi
from tracker.net.transfer import Answer, Ask, Transfer

__all__ = ["Answer", "Ask", "Fetcher", "Fetchers"]

CAP_BYTES = 4 * 1024 * 1024  # a batch answer of 1,000 generations is about 1.5 MB
KEPT_CONNECTIONS = 512  # idle ones kept for the next batch, over all hosts
SHARE = 128  # asks in flight of one handle of libcurl's
LONGEST_PAUSE = 0.1  # seconds; bounds how late a deadline is noticed, and how long the caller hears nothing
FEW = 64  # asks in flight at first: a quick host needs no more, and each is a connection there
QUICK = 0.005  # seconds; a host that lets us wait longer is worth twice as many


class Fetcher:
    """Connections, TLS sessions and handles are kept from one call to the next.

    Made after the fork and used by one thread at a time; in another process it raises WrongProcessError.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        cap_bytes: int = CAP_BYTES,
        ca_file: str | None = None,
    ) -> None:
        """`ca_file` replaces certifi's bundle."""
        self._policy = policy
        self._cap_bytes = cap_bytes
        self._ca_file = ca_file or certifi.where()
        self._pid = os.getpid()
        self._most = max(1, descriptors.share())
        self._multi = Multi(share=SHARE, kept=min(KEPT_CONNECTIONS, self._most))
        self._flying: dict[pycurl.Curl, Transfer] = {}
        self._idle: dict[bool, list[Transfer]] = {True: [], False: []}
        self._busy = False

    def fetch(
        self,
        asks: Iterable[Ask],
        *,
        at_once: int = 200,
        slice_seconds: float = 0.03,
    ) -> Iterator[list[Answer]]:
        """Yield the answers in slices as they arrive, each ask answered once, in no order.

        What is put into a deque of asks after a slice is asked as well, beside what is still in flight. A deque brings
        empty slices while nothing arrives, so that who has more to ask later on need not wait for an answer.

        A slice is handed over `slice_seconds` after its first answer, so that it can be recorded while others are in
        flight. `at_once` are in flight at most, and fewer while answers come at once or where the process may not open
        as many connections. While the caller works on a slice nothing is read: work that takes seconds makes answers late.
        Closing the iterator early abandons what is in flight.
        """
        self._enter()
        queue, silence = (asks, LONGEST_PAUSE) if isinstance(asks, deque) else (deque(asks), math.inf)
        try:
            yield from self._slices(queue, min(at_once, self._most), slice_seconds, silence)
        finally:
            self._abandon()
            self._busy = False

    def close(self) -> None:
        """Close every connection. The fetcher is of no use afterwards."""
        if self._pid == os.getpid():
            self._abandon()
            self._multi.close()

    def _enter(self) -> None:
        if os.getpid() != self._pid:
            raise WrongProcessError("fetcher", self._pid, os.getpid())
        if self._busy:
            raise RuntimeError("this fetcher is already fetching; finish or close that iterator first")
        self._busy = True

    def _slices(self, queue: deque[Ask], at_once: int, slice_seconds: float, silence: float) -> Iterator[list[Answer]]:
        ready: list[Answer] = []
        due, heard, width = 0.0, time.monotonic(), min(FEW, at_once)
        while queue or self._flying or ready:
            waiting = bool(ready)
            self._launch(queue, width, ready)
            landed = self._land(ready)
            now = time.monotonic()
            if ready and not waiting:
                due = now + slice_seconds
            if ready and (now >= due or not (queue or self._flying)):
                yield ready
                ready, heard = [], now
            elif not ready and now >= heard + silence:
                yield []
                heard = now
            elif landed:
                self._step(0.0)
            elif width < at_once and queue:
                # Work is no waiting: who opens connections has most to do, and would open ever more of them.
                if not self._step(QUICK) and time.monotonic() - now >= QUICK:
                    width = min(2 * width, at_once)
            else:
                self._step(due - now if ready else LONGEST_PAUSE)

    def _step(self, seconds: float) -> bool:
        return self._multi.step(min(seconds, LONGEST_PAUSE))

    def _launch(self, queue: deque[Ask], at_once: int, ready: list[Answer]) -> None:
        flying = self._flying
        while queue and len(flying) < at_once:
            ask = queue.popleft()
            trusted = _is_own_host(ask)
            transfer = self._idle[trusted].pop() if self._idle[trusted] else self._made(trusted=trusted)
            try:
                transfer.load(ask)
            except (ValueError, pycurl.error) as wrong:
                ready.append(Answer(ask, 0, {}, b"", "protocol", f"cannot be sent: {wrong}"))
                continue
            self._multi.add(transfer.curl)
            flying[transfer.curl] = transfer

    def _made(self, *, trusted: bool) -> Transfer:
        return Transfer(
            self._policy,
            trusted=trusted,
            cap_bytes=self._cap_bytes,
            ca_file=self._ca_file,
            closed=self._multi.closed,
        )

    def _land(self, ready: list[Answer]) -> bool:
        landed = False
        for curl, code, message in self._multi.ended():
            transfer = self._take_down(curl)
            ready.append(transfer.answer() if code is None else transfer.failure(code, message))
            landed = True
        return landed

    def _take_down(self, curl: pycurl.Curl) -> Transfer:
        self._multi.remove(curl)
        transfer = self._flying.pop(curl)
        self._idle[transfer.trusted].append(transfer)
        return transfer

    def _abandon(self) -> None:
        for curl in list(self._flying):
            self._take_down(curl).drop()


class Fetchers:
    """Fetchers for the threads of one process: as many as fetch at the same time, the one used last first.

    Its connections are open. One for each thread opens as many times what a burst of batches needs: threads take turns. Of those that
    are done, a few are kept: nobody looks after the connections of one that does nothing.
    """

    kept = 2

    def __init__(self, make: Callable[[], Fetcher]) -> None:
        self._make = make
        self._idle: list[Fetcher] = []

    def fetch(self, asks: Iterable[Ask], *, at_once: int = 200) -> Iterator[list[Answer]]:
        """As Fetcher.fetch; any number of threads may."""
        try:
            fetcher = self._idle.pop()
        except IndexError:
            fetcher = self._make()
        try:
            yield from fetcher.fetch(asks, at_once=at_once)
        finally:
            if len(self._idle) < self.kept:
                self._idle.append(fetcher)
            else:
                fetcher.close()


def _is_own_host(ask: Ask) -> bool:
    end = ask.url.find("/", 8)  # behind `http://` or `https://`: the origin, without parsing each URL
    return bool(ask.host_allowed) and _is_origin(ask.url if end < 0 else ask.url[:end], ask.host_allowed)


@lru_cache(maxsize=1024)
def _is_origin(origin: str, host_port: str) -> bool:
    try:
        parts = urlsplit(origin)
        port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    except ValueError:
        return False
    if "@" in origin or "\\" in origin or not parts.hostname:
        return False
    return f"{parts.hostname}:{port}" == host_port.lower().replace("[", "").replace("]", "")
