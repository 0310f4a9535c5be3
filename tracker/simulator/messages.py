"""Requests as they came in and replies as they shall go out: plain values, no sockets."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl

if TYPE_CHECKING:
    from tracker.simulator.wire import Wire

# How a reply reaches the wire when not simply written: gets the wire and the reply's whole bytes.
Conduct = Callable[["Wire", bytes], Awaitable[None]]

# Made once: `json.dumps` with options would build an encoder for every answer.
_JSON = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False)

_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus}


class BadRequestError(Exception):
    """The caller's own request is wrong; the message says why."""


@dataclass(slots=True)
class Request:
    """One request, complete with its body. Header names are lower case."""

    method: str
    path: str
    query: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    scheme: str = "http"
    keep_alive: bool = True

    @property
    def origin(self) -> str:
        """Scheme and host as the caller knows us, so that links in answers lead back here."""
        return f"{self.scheme}://{self.headers.get('host', 'localhost')}"

    @property
    def bearer(self) -> str:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    def parameters(self) -> dict[str, str]:
        return dict(parse_qsl(self.query))

    def fields(self) -> dict[str, Any]:
        """The body as a JSON object (an empty body counts as `{}`); raises BadRequestError for anything else."""
        try:
            found = json.loads(self.body or b"{}")
        except ValueError as error:
            raise BadRequestError(f"the body is not JSON: {error}") from error
        if not isinstance(found, dict):
            raise BadRequestError("the body must be a JSON object")
        return found


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. With a `conduct` it is not just written but played: slowly, cut short, or not at all."""

    status: int
    body: bytes = b""
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    conduct: Conduct | None = None
    length: int | None = None  # what Content-Length claims where it differs from the body (answers to HEAD)
    chunked: bool = False  # the body is in chunked transfer coding already

    @classmethod
    def json(cls, content: object, status: int = 200) -> Self:
        return cls(status, _JSON.encode(content).encode())

    def but(self, **changes: Any) -> Self:
        return replace(self, **changes)

    def encode(self, *, keep_alive: bool) -> bytes:
        lines = [_STATUS_LINES[self.status]]
        if self.status != HTTPStatus.NOT_MODIFIED:
            length = f"Content-Length: {len(self.body) if self.length is None else self.length}"
            lines.append(
                f"Content-Type: {self.media_type}\r\n{'Transfer-Encoding: chunked' if self.chunked else length}\r\n".encode()
            )
        lines += [f"{name}: {value}\r\n".encode("latin-1") for name, value in self.headers]
        lines.append(b"\r\n" if keep_alive else b"Connection: close\r\n\r\n")
        lines.append(self.body)
        return b"".join(lines)
