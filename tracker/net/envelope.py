"""One reusable libcurl handle that carries webhooks, one after another: what is kept of an answer, and what counts as one.

Never decides when to send or what an answer means.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, NamedTuple

import pycurl
from typing_extensions import override

from tracker.core.addresses import Policy
from tracker.net.failures import ErrorClass, NetError
from tracker.net.transfer import Ask, Transfer

KEPT_BYTES = 2048  # of an answer's body, for the log; the connection of a longer one is closed
_FINAL = 200  # what is below is an interim response
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect", "te", "trailer", "upgrade"})
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)


class Post(NamedTuple):
    """One webhook to send; plain http only goes to what the policy allows. `ca` is a PEM text with the only authorities to trust."""

    key: Any
    """Handed back with the answer; the poster never looks at it."""
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    deadline: float
    """Seconds in total, from the launch to the last byte of the answer."""
    ca: str | None = None
    owner: Hashable = None
    """For whom it is sent: one owner's slow name servers leave the others room."""

    @override
    def __repr__(self) -> str:
        return f"Post(key={self.key!r})"  # the rest may hold secrets


class Posted(NamedTuple):
    """What became of a post: a status (whatever the body did after it), or None and a failure."""

    post: Post
    status: int | None
    body: bytes
    """Its first 2 KB, or what arrived of them."""
    retry_after: float | None
    failure: ErrorClass | None
    detail: str
    seconds: float


def refused(post: Post, why: NetError, seconds: float) -> Posted:
    """A post that never left."""
    return Posted(post, None, b"", None, why.error_class, str(why), seconds)


@lru_cache(maxsize=8192)
def refusal_of(policy: Policy, address: str, port: int, *, plain: bool) -> str | None:
    """Why the policy refuses this address. Remembered: a policy never changes, and each post asks twice."""
    return policy.refusal(ipaddress.ip_address(address), port, plain=plain)


class Envelope(Transfer):
    """A transfer whose answer is cut off after 2 KB, and whose peer must accept the URL's scheme."""

    __slots__ = ("_began", "_ca", "_kept", "_lines", "_plain", "_post")
    repeats = 1  # a receiver may close a kept connection at any moment, and knows by the webhook-id what comes twice

    def __init__(self, policy: Policy, ca_file: str, closed: set[int]) -> None:
        super().__init__(policy, trusted=False, cap_bytes=0, ca_file=ca_file, closed=closed)
        self._post: Post | None = None
        self._ca: str | None = None
        self._plain = False
        self._began = 0.0
        self._kept = bytearray()
        self._lines: list[bytes] = []
        self.curl.setopt(pycurl.WRITEFUNCTION, self._keep)
        self.curl.setopt(pycurl.HEADERFUNCTION, self._lines.append)  # a C function: no Python frame for each line
        self.curl.unsetopt(pycurl.CAPATH)  # only the named authorities count

    @override
    def _refuses(self, host: str, port: int) -> bool:
        refusal = refusal_of(self._policy, host, port, plain=self._plain)
        self._refused = self._refused or refusal or ""  # and after one refusal, none of a name's other addresses
        return bool(self._refused)

    def _keep(self, piece: bytes) -> int | None:
        room = KEPT_BYTES - len(self._kept)
        self._kept += piece[:room]
        return None if len(piece) <= room else 0

    def address(self, post: Post, url: str, pin: str, began: float) -> None:
        """Load a post that began then, to the vetted addresses in `pin`. Raises ValueError or pycurl.error when it cannot be sent."""
        for name, _ in post.headers:
            if name.lower() in _OURS or not _NAME.fullmatch(name):
                raise ValueError(f"the header {name[:40]!r} is not one that may be set")
        self._lines.clear()
        self._kept.clear()
        self._plain = url.startswith("http:")
        left = max(0.001, post.deadline - (time.monotonic() - began))
        self.curl.setopt(pycurl.RESOLVE, [pin])
        if post.ca != self._ca:
            self._trust(post.ca)
        self.load(Ask(None, "POST", url, post.headers, post.body, left))
        self._post, self._began = post, began

    def _trust(self, ca: str | None) -> None:
        if ca is None:
            self.curl.unsetopt(pycurl.CAINFO_BLOB)
        else:
            self.curl.setopt(pycurl.CAINFO_BLOB, ca.encode())
        self._ca = ca

    def opened(self) -> Posted:
        """What the finished transfer brought. libcurl also calls it finished when the connection was closed within the head."""
        return self.returned(0, "the answer broke off in its head")

    def returned(self, code: int, message: str) -> Posted:
        """What a transfer that libcurl gave up amounts to: an answer all the same, when a whole head had arrived."""
        status = int(self.curl.getinfo(pycurl.RESPONSE_CODE))
        if status >= _FINAL and self._head_is_whole():
            return self._answered(status)
        error_class, detail = self._verdict(code, message)
        detail = detail or f"libcurl gave up with code {code}"
        return Posted(self._released(), None, b"", None, error_class, detail, time.monotonic() - self._began)

    def _answered(self, status: int) -> Posted:
        post, seconds = self._released(), time.monotonic() - self._began
        wait = self.curl.getinfo(pycurl.RETRY_AFTER)
        return Posted(post, status, bytes(self._kept), float(wait) if wait else None, None, "", seconds)

    def _head_is_whole(self) -> bool:
        for line in reversed(self._lines):
            if line in {b"\r\n", b"\n"}:
                return True
            if line.startswith(b"HTTP/"):
                break
        return False

    def _released(self) -> Post:
        post, self._post = self._post, None
        self.ask = None
        if post is None:
            raise RuntimeError("this envelope carries no post")
        return post
