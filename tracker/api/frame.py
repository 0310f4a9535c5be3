"""What surrounds every request: its id, its line in the log, and the answer when something unforeseen breaks."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tracker.api import problems
from tracker.api.measures import Requests

log = logging.getLogger("tracker.api")

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
"""What a caller may choose as request id: it goes into logs, so nothing that could forge a line."""
QUIET = {"/healthz", "/readyz", "/metrics"}
"""Asked every few seconds by machines: logged only when something is wrong."""
SERVER_ERROR = 500


class Frame:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, requests: Requests) -> None:
        self._app, self._requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, sent = time.monotonic(), 0
        request_id = _request_id(Headers(scope=scope).get("x-request-id"))
        scope.setdefault("state", {})["request_id"] = request_id

        async def framed(message: Message) -> None:
            nonlocal sent
            if message["type"] == "http.response.start":
                sent = message["status"]
                _add_headers(message, request_id)
            await send(message)

        try:
            await self._app(scope, receive, framed)
        except ClientDisconnect:
            log.debug("the client left", extra={"request_id": request_id})
        except Exception as error:
            if sent:
                raise
            answer = problems.answer(error, Request(scope))
            if answer.status_code == SERVER_ERROR:
                log.exception("request %s failed", request_id)
            await answer(scope, receive, framed)
        finally:
            self._note(scope, sent, time.monotonic() - began, request_id)

    def _note(self, scope: Scope, status: int, seconds: float, request_id: str) -> None:
        # The route's pattern, not the path: a path may carry a callback's token.
        route = getattr(scope.get("route"), "path", "(no route)")
        method = scope["method"] if route != "(no route)" else "any"
        level = logging.DEBUG if route in QUIET and status < SERVER_ERROR else logging.INFO
        log.log(level, "%s %s %s %.1f ms %s", method, route, status or "-", seconds * 1000, request_id)
        self._requests.observe(method, route, status, seconds)


def _request_id(given: str | None) -> str:
    return given if given and _SANE_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"


def _add_headers(message: Message, request_id: str) -> None:
    headers = MutableHeaders(scope=message)
    headers["X-Request-ID"] = request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Cache-Control", "no-store")
