"""A kit of servers that misbehave, on real sockets: one thread per connection, one function per vice."""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import trustme

Behaviour = Callable[[socket.socket, bytes], None]
"""What to do with a request that was read: the socket, and the request's head and body."""

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Listens on loopback until closed. `requests` holds what was read, `connections` counts what was accepted."""

    def __init__(self, behaviour: Behaviour, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> None:
        self._behaviour, self._context = behaviour, context
        self._listener = socket.create_server(
            (host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=512
        )
        self.port: int = self._listener.getsockname()[1]
        self.requests: list[bytes] = []
        self.connections = 0
        self.peak = 0
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{'https' if self._context else 'http'}://localhost:{self.port}/"

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                wire, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(wire)
                self.peak = max(self.peak, len(self._open))
            threading.Thread(target=self._serve, args=(wire,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        wire = plain
        with contextlib.suppress(OSError, ssl.SSLError, ValueError):
            if self._context:
                wire = self._context.wrap_socket(plain, server_side=True)
            while not self.closing.is_set() and (request := read_request(wire)):
                self.requests.append(request)
                self._behaviour(wire, request)
        with contextlib.suppress(OSError):
            wire.close()
        with self._lock:
            self._open.discard(plain)

    def close(self) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes `accept`, which would serve one more connection
        self._listener.close()
        with self._lock:
            for wire in self._open:
                with contextlib.suppress(OSError):
                    wire.shutdown(socket.SHUT_RDWR)


def read_request(wire: socket.socket) -> bytes:
    got = b""
    while b"\r\n\r\n" not in got:
        more = wire.recv(65536)
        if not more:
            return b""
        got += more
    head, _, body = got.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length:
        body += wire.recv(65536)
    return head + b"\r\n\r\n" + body


@contextlib.contextmanager
def serving(behaviour: Behaviour, context: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[Server]:
    server = Server(behaviour, context, host)
    try:
        yield server
    finally:
        server.close()


def says(answer: bytes) -> Behaviour:
    return lambda wire, _: wire.sendall(answer)


def then_closes(answer: bytes) -> Behaviour:
    def behave(wire: socket.socket, _: bytes) -> None:
        wire.sendall(answer)
        with contextlib.suppress(OSError):
            wire.shutdown(socket.SHUT_RDWR)

    return behave


def drips(start: bytes, every: float = 0.05, drop: bytes = b"x") -> Behaviour:
    """Send `start`, then one drop after the other for ever."""

    def behave(wire: socket.socket, _: bytes) -> None:
        wire.sendall(start)
        for _ in itertools.count():
            wire.sendall(drop)
            threading.Event().wait(every)

    return behave


def floods(start: bytes, block: bytes) -> Behaviour:
    """Send `start`, then the block as fast as possible for ever."""

    def behave(wire: socket.socket, _: bytes) -> None:
        wire.sendall(start)
        while True:
            wire.sendall(block)

    return behave


def falls_silent(start: bytes = b"") -> Behaviour:
    def behave(wire: socket.socket, _: bytes) -> None:
        wire.sendall(start)
        wire.recv(1)  # until the other side goes away

    return behave


def resets(start: bytes = b"") -> Behaviour:
    def behave(wire: socket.socket, _: bytes) -> None:
        wire.sendall(start)
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise OSError

    return behave


def half_closes(start: bytes = b"") -> Behaviour:
    def behave(wire: socket.socket, _: bytes) -> None:
        wire.sendall(start)
        wire.shutdown(socket.SHUT_WR)
        wire.recv(1)

    return behave


class Authority:
    """A certificate authority of our own, with certificates good and bad."""

    def __init__(self, folder: Path) -> None:
        self.ca = trustme.CA()
        self.file = folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(self.file))
        self.pem = self.file.read_text()

    def context(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        past = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
        issued = self.ca.issue_cert(*(names or ("localhost", "127.0.0.1")), not_after=past if expired else None)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        issued.configure_cert(context)
        return context


class Clock:
    """How long a block took."""

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.monotonic() - self._began


def trustme_stranger() -> ssl.SSLContext:
    """A certificate with the right name from an authority that nobody trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


def resolves_to(*addresses: str) -> Callable[[str, int], list[str]]:
    """A resolver that gives every name these addresses."""
    return lambda *_: list(addresses)
