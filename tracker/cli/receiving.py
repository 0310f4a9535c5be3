"""A receiver of webhooks on the loopback, for `tracker listen`: it verifies each request, passes it on and reports it."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from typing_extensions import override

from tracker.core import signing

LOOPBACK = "127.0.0.1"
LONGEST_BODY = 1_000_000
"""Bytes; a payload of ours has 20,000 at most."""
FORWARD_SECONDS = 15.0
"""For the target's answer: less than the sender's 20, which would otherwise call us slow and not the target."""
LONGEST_ANSWER = 64 * 1024
HOP_BY_HOP = frozenset({"host", "connection", "keep-alive", "te", "upgrade", "proxy-connection", "transfer-encoding"})
"""Headers that belong to one connection; all others are passed on as they came."""
PASSED_BACK = ("Content-Type", "Retry-After")
OK, BAD, BAD_GATEWAY, GATEWAY_TIMEOUT = 204, 400, 502, 504
BODILESS = frozenset({204, 304})


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sender is answered. `took` is set when the forward target was asked, `problem` when it did not answer."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    took: float | None = None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request: the event in it, or why it was refused; and what it was answered."""

    at: datetime
    webhook_id: str
    event: dict[str, Any] | None
    refused: str | None
    answer: Answer


class Forward:
    """Posts the same bytes with the same headers to a URL. Redirects are answers, and no proxy is asked."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._make = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname or "", parts.port
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")

    def __call__(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """The target's answer; 502 or 504 when there is none, so that the sender tries again."""
        began = time.monotonic()
        connection = self._make(self._host, self._port, timeout=FORWARD_SECONDS)
        try:
            connection.putrequest("POST", self._target, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in HOP_BY_HOP:
                    connection.putheader(name, value)
            connection.endheaders(body)
            told = connection.getresponse()
            kept = {name: told.headers[name] for name in PASSED_BACK if name in told.headers}
            return Answer(told.status, told.read(LONGEST_ANSWER), kept, time.monotonic() - began)
        except TimeoutError:
            return Answer(GATEWAY_TIMEOUT, took=time.monotonic() - began, problem=f"no answer in {FORWARD_SECONDS:g} s")
        except (OSError, http.client.HTTPException) as wrong:
            reason = getattr(wrong, "strerror", None) or str(wrong) or type(wrong).__name__
            return Answer(BAD_GATEWAY, took=time.monotonic() - began, problem=reason.lower())
        finally:
            connection.close()


class Receiver(ThreadingHTTPServer):
    """Listens from its making on, and answers while it is `serving`. `report` is called from many threads."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, forward: Forward | None, report: Callable[[Arrival], None]) -> None:
        super().__init__((LOOPBACK, port), _Request)
        self._secret, self._forward, self._report = "", forward, report

    @property
    def url(self) -> str:
        """Where it is reached on this machine."""
        return f"http://{LOOPBACK}:{self.server_address[1]}/"

    def is_at(self, url: str) -> bool:
        """Whether this URL leads here."""
        parts = urlsplit(url)
        return parts.port == self.server_address[1] and parts.hostname in {LOOPBACK, "localhost"}

    @contextmanager
    def serving(self, secret: str) -> Iterator[None]:
        """Answer what is signed with this secret, for the time of the block. What comes earlier waits for its beginning."""
        self._secret = secret
        thread = Thread(target=self.serve_forever, args=(0.1,), name="receiver", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.shutdown()
            thread.join()

    def take(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Verify one request, pass it on, report it."""
        now = time.time()
        identity = next((value for name, value in headers.items() if name.lower() == "webhook-id"), "")
        arrived = partial(Arrival, datetime.fromtimestamp(now, UTC), identity)
        try:
            event = signing.verify(self._secret, headers, body, now=now)
        except ValueError as wrong:  # SignatureError, or signed and yet no JSON
            self._report(arrived(None, str(wrong), answer := Answer(BAD)))
        else:
            answer = Answer(OK) if self._forward is None else self._forward(headers, body)
            self._report(arrived(event, None, answer))
        return answer

    @override
    def handle_error(self, *_: object) -> None:
        """A sender that went away before it had its answer will come again."""


class _Request(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    server: Receiver

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and int(length) <= LONGEST_BODY):
            self.close_connection = True
            self.send_error(413 if length.isdigit() else 411)
            return
        answer = self.server.take(dict(self.headers.items()), self.rfile.read(int(length)))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if answer.status not in BODILESS:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    @override
    def log_message(self, *_: object) -> None:
        """What arrives is reported, not logged."""
