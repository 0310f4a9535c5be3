"""Posts many webhooks at once: libcurl's multi interface on one thread, where posts join while others are in flight.

Never follows a redirect, reads an environment proxy, connects to an address that was not vetted, or keeps more of an answer than
its beginning. docs/decisions/webhook-transport.md says why libcurl.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import time
from collections.abc import Iterable
from functools import lru_cache
from urllib.parse import urlsplit

import certifi
import pycurl
import requests

from tracker.core.addresses import DEFAULT_PORTS, Address, Policy, check_form, literal
from tracker.net.envelope import Envelope, Post, Posted, refusal_of, refused
from tracker.net.failures import NetError, WrongProcessError
from tracker.net.multi import Multi
from tracker.net.pins import Pins
from tracker.net.resolve import Key, LookUp, Resolver, system

__all__ = ["Post", "Posted", "Poster"]

KEPT = 256  # idle connections kept for the next post; and posts in flight of one handle of libcurl's


class Poster:
    """Made after the fork; all but `wake` belongs to one thread. `look_up` replaces the system's resolver, `ca_file` certifi's bundle."""

    def __init__(self, policy: Policy, *, look_up: LookUp = system, ca_file: str | None = None) -> None:
        self._policy = policy
        self._pins = Pins(Resolver(look_up), self.wake)
        self._ca_file = ca_file or certifi.where()
        self._pid = os.getpid()
        self._flying: dict[pycurl.Curl, Envelope] = {}
        self._idle: list[Envelope] = []
        self._done: list[Posted] = []
        self._asking: dict[Key, list[tuple[Post, float]]] = {}
        self._patience = math.inf  # until the first of these has waited long enough
        self._rings, self._ringer = socket.socketpair()
        self._rings.setblocking(False)
        self._ringer.setblocking(False)
        self._multi = Multi(share=KEPT, kept=KEPT, bell=self._rings)

    @property
    def flying(self) -> int:
        """How many posts were launched and not handed back yet."""
        return len(self._flying) + len(self._done) + sum(map(len, self._asking.values()))

    def launch(self, posts: Iterable[Post]) -> None:
        """Send these off. Each comes back from `landed` once, at most its deadline later."""
        if os.getpid() != self._pid:
            raise WrongProcessError("poster", self._pid, os.getpid())
        for post in posts:
            self._address(post, time.monotonic())
        self._multi.step(0.0)

    def landed(self, wait: float) -> list[Posted]:
        """What came back. Waits up to `wait` seconds for something to happen, which need not be a landing; `wake` ends the wait."""
        self._take_look_ups()
        self._land()
        if not self._done and wait > 0:
            self._sleep(wait)
            self._take_look_ups()
            self._land()
        done, self._done = self._done, []
        return done

    def wake(self) -> None:
        """End a wait that is under way, or the next one; callable from any thread."""
        # Full: it is awake enough. Closed: a look-up came back to a poster that is gone.
        with contextlib.suppress(OSError):
            self._ringer.send(b"!")

    def close(self) -> None:
        """Close every connection and forget what is in flight. The poster is of no use afterwards."""
        if self._pid == os.getpid():
            for curl in list(self._flying):
                self._multi.remove(curl)
            self._flying.clear()
            self._multi.close()
            self._rings.close()
            self._ringer.close()

    def _sleep(self, seconds: float) -> None:
        self._multi.step(min(seconds, max(0.0, self._patience - time.monotonic())))
        with contextlib.suppress(BlockingIOError):
            while self._rings.recv(4096):
                pass

    def _address(self, post: Post, began: float) -> None:
        """Find where the post goes: the address in its URL, a pinned one, or one that is looked up now."""
        try:
            url, host, port = _target(post.url)
        except NetError as wrong:
            self._done.append(refused(post, wrong, 0.0))
            return
        address = _literal(host)
        addresses = [address] if address else self._pins.find((host, port), post.owner)
        if addresses:
            self._send(post, url, addresses, began)
        else:
            self._asking.setdefault((host, port), []).append((post, began))
            self._patience = min(self._patience, began + post.deadline)

    def _take_look_ups(self) -> None:
        for key, found in self._pins.answers():
            for post, began in self._asking.pop(key, []):
                if isinstance(found, NetError):
                    self._done.append(refused(post, found, time.monotonic() - began))
                else:
                    self._send(post, _target(post.url)[0], found, began)
        if time.monotonic() >= self._patience:
            self._end_asking(time.monotonic())

    def _end_asking(self, now: float) -> None:
        """Hand back what has waited for its name until its deadline."""
        self._patience = math.inf
        for key, posts in list(self._asking.items()):
            late = NetError("dns", f"the name look-up of {key[0]} took too long")
            self._done += [refused(post, late, now - began) for post, began in posts if now >= began + post.deadline]
            waiting = [(post, began) for post, began in posts if now < began + post.deadline]
            if waiting:
                self._asking[key] = waiting
                self._patience = min(self._patience, *(began + post.deadline for post, began in waiting))
            else:
                del self._asking[key]
                self._pins.drop(key)

    def _send(self, post: Post, url: str, addresses: list[Address], began: float) -> None:
        _, host, port = _target(post.url)
        plain = url.startswith("http:")
        for address in addresses:  # one forbidden answer refuses all: a mixed answer is an attack or a mistake
            if refusal := refusal_of(self._policy, str(address), port, plain=plain):
                self._done.append(refused(post, NetError("address", refusal), time.monotonic() - began))
                return
        envelope = self._idle.pop() if self._idle else Envelope(self._policy, self._ca_file, self._multi.closed)
        pin = f"+{host}:{port}:{','.join(f'[{a}]' if a.version == 6 else str(a) for a in addresses)}"  # noqa: PLR2004
        try:
            envelope.address(post, url, pin, began)
        except (ValueError, pycurl.error) as wrong:
            self._done.append(refused(post, NetError("protocol", f"cannot be sent: {wrong}"), 0.0))
            return
        self._multi.add(envelope.curl)
        self._flying[envelope.curl] = envelope

    def _land(self) -> None:
        self._multi.step(0.0)
        for curl, code, message in self._multi.ended():
            envelope = self._take_down(curl)
            self._done.append(envelope.opened() if code is None else envelope.returned(code, message))

    def _take_down(self, curl: pycurl.Curl) -> Envelope:
        self._multi.remove(curl)
        envelope = self._flying.pop(curl)
        self._idle.append(envelope)
        return envelope


_literal = lru_cache(maxsize=4096)(literal)


@lru_cache(maxsize=4096)
def _target(url: str) -> tuple[str, str, int]:
    """The URL as it is sent (percent-encoded, IDNA), its host and its port. Raises NetError `address` for what is none."""
    if wrong := check_form(url):
        raise NetError("address", wrong)
    request = requests.PreparedRequest()
    try:
        request.prepare_url(url, None)
    except requests.RequestException as error:
        raise NetError("address", f"it is not a valid URL: {error}") from None
    parts = urlsplit(request.url or "")
    return request.url or "", parts.hostname or "", parts.port or DEFAULT_PORTS[parts.scheme]
