"""A small receiver of webhooks on the loopback, for the demonstration: it believes only what carries the project's signature."""

from __future__ import annotations

import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

from tracker.core import signing
from tracker.embedded.ports import LOOPBACK

LARGEST_BODY = 1_000_000


class Receiver:
    """Listens on a port that the kernel chooses, until the process ends. `events` are those that verified, each once."""

    def __init__(self, secret: str) -> None:
        self.events: dict[str, dict[str, Any]] = {}
        self.refused = 0
        self._secret, self._lock = secret, Lock()
        self._server = ThreadingHTTPServer((LOOPBACK, 0), _listener(self.take))
        self._server.daemon_threads = True
        Thread(target=self._server.serve_forever, name="demo-receiver", daemon=True).start()

    @property
    def url(self) -> str:
        """What to give as `webhook_url`."""
        return f"http://{LOOPBACK}:{self._server.server_address[1]}/webhooks"

    def take(self, headers: dict[str, str], body: bytes) -> HTTPStatus:
        """Verify and keep one message. The same event may come more than once, as webhooks do."""
        try:
            event = signing.verify(self._secret, headers, body, now=time.time())
        except ValueError:
            self.refused += 1
            return HTTPStatus.BAD_REQUEST
        identity = {name.lower(): value for name, value in headers.items()}["webhook-id"]
        with self._lock:
            self.events[identity] = event
        return HTTPStatus.NO_CONTENT

    def types(self, generation_id: str) -> set[str]:
        """Which types of verified events have come about a generation."""
        with self._lock:
            return {str(event["type"]) for event in self.events.values() if event["data"].get("id") == generation_id}

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()


def _listener(take: Callable[[dict[str, str], bytes], HTTPStatus]) -> type[BaseHTTPRequestHandler]:
    def post(request: BaseHTTPRequestHandler) -> None:
        size = int(request.headers.get("Content-Length", 0))
        body = request.rfile.read(size) if 0 <= size <= LARGEST_BODY else None
        status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if body is None else take(dict(request.headers.items()), body)
        request.send_response(status)
        request.end_headers()

    def say_nothing(*_: object) -> None:
        """The demonstration's table tells the story."""

    return type("Listener", (BaseHTTPRequestHandler,), {"do_POST": post, "log_message": say_nothing, "timeout": 30})
