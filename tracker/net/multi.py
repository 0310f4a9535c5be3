"""libcurl's multi interface over epoll: many transfers on one thread, of which only those are looked at whose sockets are ready.

Unlike `select`, which libcurl's own waiting uses, it knows no greatest file descriptor.
"""

from __future__ import annotations

import math
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial

import pycurl

_WANTED = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}
_SEEN = {select.EPOLLIN: pycurl.CSELECT_IN, select.EPOLLOUT: pycurl.CSELECT_OUT}
_ANY = pycurl.CSELECT_IN | pycurl.CSELECT_OUT | pycurl.CSELECT_ERR


UNUSED = 60.0
"""Seconds after which a handle that only bursts need is closed."""
MOST_CLOSED = 4096
"""Ports remembered: those that libcurl never takes up again must not add up."""


def _has_ended(kept: socket.socket) -> bool:
    try:
        return not kept.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True  # reset


class Multi:
    """Something to read on `bell` ends a wait, too; reading it is its owner's work.

    A handle of libcurl's looks through all connections that it has to the host for a free one, at each new transfer. So transfers are
    divided among handles that have `share` in flight each, and keep as many idle connections; a new one goes to the first with room. So a
    few need one handle, which keeps `kept` idle connections, and the others are closed when a burst is over.
    """

    def __init__(self, *, share: int, kept: int, bell: socket.socket | None = None) -> None:
        self._share, self._kept = share, kept
        self._epoll = select.epoll()
        if bell is not None:
            self._epoll.register(bell, select.EPOLLIN)
        self._handles: list[_Handle] = []
        self._carrier: dict[pycurl.Curl, _Handle] = {}
        self._watched: dict[int, _Handle] = {}
        self._resting: set[int] = set()
        self.closed: set[int] = set()
        """Local ports of kept connections that the other side has closed: a request that goes out there reaches nobody."""
        self._tidied = time.monotonic()

    def add(self, curl: pycurl.Curl) -> None:
        """Begin a transfer, with the next step."""
        for handle in self._handles:
            if handle.flying < self._share:
                break
        else:
            handle = self._another()
        handle.multi.add_handle(curl)
        handle.flying += 1
        handle.used = True
        self._carrier[curl] = handle

    def _another(self) -> _Handle:
        try:
            made = _Handle(max(self._share, 0 if self._handles else self._kept), self._watch)
        except pycurl.error:
            # It takes descriptors of its own, and none is left; without any handle nothing can be asked.
            if not self._handles:
                raise
            return min(self._handles, key=lambda handle: handle.flying)
        self._handles.append(made)
        return made

    def remove(self, curl: pycurl.Curl) -> None:
        """Take out a transfer, whether or not it has ended."""
        handle = self._carrier.pop(curl)
        handle.multi.remove_handle(curl)
        handle.flying -= 1

    def step(self, seconds: float) -> bool:
        """Let libcurl go on with what has something to do; wait for it, at most `seconds`. Returns whether anything had."""
        due = min((handle.timer for handle in self._handles), default=math.inf)
        if due < math.inf:
            seconds = min(seconds, due - time.monotonic())
        stirred = False
        for descriptor, ready in self._epoll.poll(max(0.0, seconds)):
            stirred = True
            if descriptor in self._resting:
                self._forget(descriptor)
            elif handle := self._watched.get(descriptor):  # None is the bell
                handle.multi.socket_action(descriptor, _SEEN.get(ready, _ANY))
        now = time.monotonic()
        for handle in self._handles:
            if now >= handle.timer:
                stirred, handle.timer = True, math.inf
                handle.multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        if now - self._tidied > UNUSED:
            self._tidied = now
            self._tidy()
        return stirred

    def ended(self) -> Iterator[tuple[pycurl.Curl, int | None, str]]:
        """The transfers that ended: with None and "", or with libcurl's code and message where it gave up."""
        for handle in self._handles:
            more = handle.flying
            while more:
                more, done, failed = handle.multi.info_read(1000)
                for curl in done:
                    yield curl, None, ""
                yield from failed

    def close(self) -> None:
        """Close every connection."""
        for handle in self._handles:
            handle.multi.close()
        self._epoll.close()

    def _tidy(self) -> None:
        """Close the handles that no burst has needed since the last time; nobody else would close what they keep."""
        unused = [handle for handle in self._handles[1:] if not handle.used]
        for handle in unused:
            self._handles.remove(handle)
            handle.multi.close()
            for descriptor in [d for d, owner in self._watched.items() if owner is handle]:
                del self._watched[descriptor]
                self._resting.discard(descriptor)
        for handle in self._handles:
            handle.used = handle.flying > 0

    def _watch(self, handle: _Handle, what: int, descriptor: int, _multi: object, _data: object) -> None:
        """Libcurl says what it waits for on a socket.

        One that it no longer waits for stays registered: it is mostly a kept connection that carries the next request, and one system
        call to modify is less than one to take it out and one to put it back.
        """
        if what == pycurl.POLL_REMOVE:
            self._resting.add(descriptor)
            return
        self._resting.discard(descriptor)
        known = descriptor in self._watched
        self._watched[descriptor] = handle  # the number may have been another handle's socket before
        if known:
            try:  # at no cost where it goes well, which `suppress` is not: this is done for each request
                self._epoll.modify(descriptor, _WANTED[what])
            except FileNotFoundError:
                pass  # it was closed while it rested, which took it out, and this is another socket of the same number
            else:
                return
        self._epoll.register(descriptor, _WANTED[what])

    def _forget(self, descriptor: int) -> None:
        """Something comes on a connection that is only kept: nearly always its end."""
        if len(self.closed) >= MOST_CLOSED:
            self.closed.clear()
        with suppress(OSError), socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as kept:
            if _has_ended(kept):
                self.closed.add(kept.getsockname()[1])
        self._resting.discard(descriptor)
        self._watched.pop(descriptor, None)
        with suppress(OSError):
            self._epoll.unregister(descriptor)


class _Handle:
    """One of libcurl's own: its transfers, its connections, and when it has something to do whatever happens."""

    def __init__(self, kept: int, watch: Callable[[_Handle, int, int, object, object], None]) -> None:
        self.multi = pycurl.CurlMulti()
        self.flying = 0
        self.used = False
        self.timer = math.inf
        self.multi.setopt(pycurl.M_MAXCONNECTS, kept)
        self.multi.setopt(
            pycurl.M_SOCKETFUNCTION, partial(watch, self)
        )  # no frame of its own: it is called for each request
        self.multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    def _set_timer(self, milliseconds: int) -> None:
        """Libcurl says when; -1 for never."""
        self.timer = math.inf if milliseconds < 0 else time.monotonic() + milliseconds / 1000
