"""A server of large films for tests that kill: each film is unlike every other, and every byte that leaves is counted."""

from __future__ import annotations

import hashlib
import random
import re
import socket
import threading

from tests.net import hostile

BLOCK = 1024 * 1024
_RANGE = re.compile(rb"\r\nRange: bytes=(\d+)-\r\n")
_CONDITION = re.compile(rb"\r\nIf-Range: ([^\r]+)\r\n")


class Films:
    """`/films/{number}`, with ranges and ETags; `pause` is the seconds between two blocks."""

    def __init__(self, size: int, pause: float = 0.0) -> None:
        self.size, self.pause = size, pause
        self.served = 0
        self._lock = threading.Lock()
        self._rest = memoryview(random.Random(size).randbytes(size - 32))

    def head(self, number: int) -> bytes:
        return (b"\0\0\0\x18ftypmp42" + b"film %08d" % number).ljust(32, b"\0")

    def sha256(self, number: int) -> str:
        digest = hashlib.sha256(self.head(number))
        digest.update(self._rest)
        return digest.hexdigest()

    def __call__(self, wire: socket.socket, request: bytes) -> None:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 128 * 1024)  # what is counted was nearly taken
        number = int(request.split(b" ", 2)[1].rpartition(b"/")[2])
        etag = b'"film-%d"' % number
        asked, condition = _RANGE.search(request), _CONDITION.search(request)
        start = int(asked[1]) if asked and condition and condition[1] == etag else 0
        kind, length = b"200 OK", self.size - start
        more = b""
        if asked and start >= self.size:
            kind, length, more = b"416 Range Not Satisfiable", 0, b"Content-Range: bytes */%d\r\n" % self.size
        elif start:
            kind, more = (
                b"206 Partial Content",
                b"Content-Range: bytes %d-%d/%d\r\n" % (start, self.size - 1, self.size),
            )
        wire.sendall(b"HTTP/1.1 %b\r\nETag: %b\r\n%bContent-Length: %d\r\n\r\n" % (kind, etag, more, length))
        if length:
            self._pour(wire, number, start)

    def _pour(self, wire: socket.socket, number: int, start: int) -> None:
        if start < 32:
            self._send(wire, memoryview(self.head(number))[start:])
        at = max(start - 32, 0)
        while at < len(self._rest):
            self._send(wire, self._rest[at : at + BLOCK])
            at += BLOCK
            if self.pause:
                threading.Event().wait(self.pause)

    def _send(self, wire: socket.socket, block: memoryview) -> None:
        while block:
            sent = wire.send(block[: 64 * 1024])
            with self._lock:
                self.served += sent
            block = block[sent:]


def serving(films: Films) -> hostile.Server:
    return hostile.Server(films)
