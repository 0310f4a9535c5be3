"""Waiting without holding anything: one shared look at the database for everybody who waits, woken early by Redis.

A waiter holds neither a connection nor a thread. Redis only makes it faster: without it the looks alone find every change.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import redis.asyncio
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request

from tracker.api.problems import BusyError

log = logging.getLogger(__name__)

LOOK_EVERY = 0.15
"""Seconds between looks while somebody waits: what a change without Redis takes to be seen."""
BREATH = 0.02
"""Seconds between looks at least, however often Redis rings."""
RECONNECT_AFTER = 2.0

_K = TypeVar("_K")
_V = TypeVar("_V")
_T = TypeVar("_T")


@dataclass(eq=False)
class _Waiter(Generic[_K, _V]):
    key: _K
    known: _V | None
    found: asyncio.Future[_V | None]


class Watch(Generic[_K, _V]):
    """Wakes those who wait for a key as soon as `look` says something else of it than they know.

    `look` runs in a thread, gets every key that is waited for, and leaves out what is gone. At most `most` wait at once.
    """

    def __init__(self, look: Callable[[Sequence[_K]], Mapping[_K, _V]], *, most: int) -> None:
        self._look, self._most = look, most
        self._waiters: set[_Waiter[_K, _V]] = set()
        self._rung = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self.closed = False

    @property
    def full(self) -> bool:
        """Whether nobody else may wait now."""
        return self.closed or len(self._waiters) >= self._most

    async def differs(self, key: _K, known: _V | None, seconds: float) -> _V | None:
        """What there is instead of `known` (None when it is gone). TimeoutError after `seconds`, BusyError when too many wait."""
        if self.full:
            raise BusyError("too many wait already; ask again without waiting, or later")
        waiter = _Waiter(key, known, asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._go_on_looking())
        try:
            return await asyncio.wait_for(waiter.found, seconds)
        finally:
            self._waiters.discard(waiter)

    def ring(self) -> None:
        """Something changed: look now."""
        self._rung.set()

    def close(self) -> None:
        """Let everybody go: no one waits while we stop."""
        self.closed = True
        for waiter in self._waiters:
            if not waiter.found.done():
                waiter.found.set_exception(BusyError("we are about to stop; ask again"))

    async def _go_on_looking(self) -> None:
        while self._waiters and not self.closed:
            self._rung.clear()
            # Who comes while we look waits for the next look: this one knows nothing of their keys.
            asking = list(self._waiters)
            try:
                self._tell(asking, await run_in_threadpool(self._look, list({waiter.key for waiter in asking})))
            except Exception as wrong:  # noqa: BLE001 - whatever the database does, those who wait are woken by their time
                log.warning("a look at the database failed: %s", type(wrong).__name__)
            await asyncio.sleep(BREATH)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._rung.wait(), LOOK_EVERY - BREATH)

    @staticmethod
    def _tell(asking: Sequence[_Waiter[_K, _V]], seen: Mapping[_K, _V]) -> None:
        for waiter in asking:
            value = seen.get(waiter.key)
            if value != waiter.known and not waiter.found.done():
                waiter.found.set_result(value)


class Bells:
    """Listens to Redis for the one sentence "something changed" and rings the watches."""

    def __init__(self, url: str, channel: str, watches: Sequence[Watch[Any, Any]]) -> None:
        self._url, self._channel, self._watches = url, channel, watches

    async def listen(self) -> None:
        """Until cancelled. Redis may come and go."""
        while True:
            with suppress(RedisError, OSError):
                await self._until_it_breaks()
            await asyncio.sleep(RECONNECT_AFTER)

    async def _until_it_breaks(self) -> None:
        client = redis.asyncio.Redis.from_url(self._url, socket_connect_timeout=2, health_check_interval=25, protocol=2)
        async with client, client.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(self._channel)
            async for _ in subscription.listen():
                for watch in self._watches:
                    watch.ring()


async def unless_left(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """What `work` returns or raises; ClientDisconnect when the client goes before, and then `work` is cancelled."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
