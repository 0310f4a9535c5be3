"""Plain HTTP to our own servers on this machine, for the demonstration. No proxy, no redirects, nothing but the loopback."""

from __future__ import annotations

import hashlib
import http.client
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tracker.errors import TrackerError

LIMIT = 15.0
"""Seconds for any one answer of a server that runs beside us."""
PIECE = 256 * 1024


@dataclass(frozen=True)
class Loopback:
    """A server beside us, and the bearer it wants."""

    url: str
    bearer: str

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The JSON of an answer. Raises TrackerError with the server's own words when it refuses, OSError when it is away or unwell."""
        content = None if body is None else json.dumps(body).encode()
        status, answer = self._ask(method, path, content)
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise ConnectionError(f"{method} {path} was answered {status}: {answer[:500].decode(errors='replace')}")
        if not http.HTTPStatus.OK <= status < http.HTTPStatus.MULTIPLE_CHOICES:
            raise TrackerError(f"{method} {path} was answered {status}: {answer[:500].decode(errors='replace')}")
        found: dict[str, Any] = json.loads(answer)
        return found

    def sha256(self, path: str) -> str:
        """The SHA-256 (hexadecimal) of the bytes at a path."""
        connection = self._open()
        try:
            connection.request("GET", path, headers={"Authorization": f"Bearer {self.bearer}"})
            answer, digest = connection.getresponse(), hashlib.sha256()
            while piece := answer.read(PIECE):
                digest.update(piece)
            return digest.hexdigest() if answer.status == http.HTTPStatus.OK else f"status {answer.status}"
        finally:
            connection.close()

    def _ask(self, method: str, path: str, content: bytes | None) -> tuple[int, bytes]:
        headers = {
            "Authorization": f"Bearer {self.bearer}",
            "Content-Type": "application/json",
            "Accept": "application/json",
        }
        connection = self._open()
        try:
            connection.request(method, path, body=content, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as wrong:
            raise ConnectionError(f"{self.url} broke off: {wrong}") from wrong
        finally:
            connection.close()

    def _open(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.url)
        return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=LIMIT)
