"""libcurl's multi interface over epoll: many transfers on one thread, of which only those are looked at whose sockets are ready.

Unlike `select`, which libcurl's own waiting uses, it knows no greatest file descriptor.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pycurl

_WANTED = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}
_SEEN = {select.EPOLLIN: pycurl.CSELECT_IN, select.EPOLLOUT: pycurl.CSELECT_OUT}
_ANY = pycurl.CSELECT_IN | pycurl.CSELECT_OUT | pycurl.CSELECT_ERR


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
    """Keeps up to `kept` idle connections. Something to read on `bell` ends a wait, too; reading it is its owner's work."""

    def __init__(self, *, kept: int, per_host: int = 0, bell: socket.socket | None = None) -> None:
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_MAXCONNECTS, kept)
        self._multi.setopt(pycurl.M_MAX_HOST_CONNECTIONS, per_host)
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)
        self._epoll = select.epoll()
        if bell is not None:
            self._epoll.register(bell, select.EPOLLIN)
        self._watched: set[int] = set()
        self._resting: set[int] = set()
        self.closed: set[int] = set()
        """Local ports of kept connections that the other side has closed: a request that goes out there reaches nobody."""
        self._timer: float | None = None

    def add(self, curl: pycurl.Curl) -> None:
        """Begin a transfer, with the next step."""
        self._multi.add_handle(curl)

    def remove(self, curl: pycurl.Curl) -> None:
        """Take out a transfer, whether or not it has ended."""
        self._multi.remove_handle(curl)

    def step(self, seconds: float) -> None:
        """Let libcurl go on with what has something to do; wait for it, at most `seconds`."""
        if self._timer is not None:
            seconds = min(seconds, self._timer - time.monotonic())
        for descriptor, ready in self._epoll.poll(max(0.0, seconds)):
            if descriptor in self._resting:
                self._forget(descriptor)
            elif descriptor in self._watched:  # not the bell
                self._multi.socket_action(descriptor, _SEEN.get(ready, _ANY))
        if self._timer is not None and time.monotonic() >= self._timer:
            self._timer = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def ended(self) -> Iterator[tuple[pycurl.Curl, int | None, str]]:
        """The transfers that ended: with None and "", or with libcurl's code and message where it gave up."""
        more = 1
        while more:
            more, done, failed = self._multi.info_read(1000)
            for curl in done:
                yield curl, None, ""
            yield from failed

    def close(self) -> None:
        """Close every connection."""
        self._multi.close()
        self._epoll.close()

    def _watch(self, what: int, descriptor: int, _multi: object, _data: object) -> None:
        """Libcurl says what it waits for on a socket.

        One that it no longer waits for stays registered: it is mostly a kept connection that carries the next request, and one system
        call to modify is less than one to take it out and one to put it back.
        """
        if what == pycurl.POLL_REMOVE:
            self._resting.add(descriptor)
            return
        self._resting.discard(descriptor)
        if descriptor in self._watched:
            try:  # at no cost where it goes well, which `suppress` is not: this is done for each request
                self._epoll.modify(descriptor, _WANTED[what])
            except FileNotFoundError:
                pass  # it was closed while it rested, which took it out, and this is another socket of the same number
            else:
                return
        self._watched.add(descriptor)
        self._epoll.register(descriptor, _WANTED[what])

    def _forget(self, descriptor: int) -> None:
        """Something comes on a connection that is only kept: nearly always its end."""
        if len(self.closed) >= MOST_CLOSED:
            self.closed.clear()
        with suppress(OSError), socket.fromfd(descriptor, socket.AF_INET, socket.SOCK_STREAM) as kept:
            if _has_ended(kept):
                self.closed.add(kept.getsockname()[1])
        self._resting.discard(descriptor)
        self._watched.discard(descriptor)
        with suppress(OSError):
            self._epoll.unregister(descriptor)

    def _set_timer(self, milliseconds: int) -> None:
        """Libcurl says when it has something to do whatever happens; -1 for never."""
        self._timer = None if milliseconds < 0 else time.monotonic() + milliseconds / 1000
