"""Connections of the guarded session: addresses vetted before a socket exists, and every read and write under a deadline.

Knows nothing of redirects, bodies or what an answer means.
"""

from __future__ import annotations

import http.client
import math
import socket
import ssl
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import urllib3
from typing_extensions import override
from urllib3.connection import HTTPConnection, HTTPSConnection

from tracker.core.addresses import Address, Policy, literal
from tracker.net.failures import NetError
from tracker.net.resolve import Resolver

HEAD_BYTES = 64 * 1024  # status line and headers, interim responses included; nginx sends at most 32 KB
MOST_INTERIM = 10  # responses of class 1xx before the real one


@dataclass(slots=True)
class Call:
    """One request on its way: what its connection must know. Times are those of `time.monotonic`."""

    policy: Policy
    resolver: Resolver
    until: float
    silence: float
    """Seconds without a single byte after which the other side counts as gone."""
    https_only: bool
    context: ssl.SSLContext | None
    """Whom to trust; None for plain http."""
    fresh: bool = False
    """Whether a connection was made for it; a kept-alive one may have died unnoticed."""

    def left(self) -> float:
        """Seconds until the deadline. Raises NetError when there are none."""
        left = self.until - time.monotonic()
        if left <= 0:
            raise NetError("timeout", "the deadline passed")
        return left


CALL: ContextVar[Call] = ContextVar("CALL")


class _Deadlines:
    """Arms each single read and write with the time that is left: many slow ones cannot add up beyond the deadline."""

    until = math.inf
    silence = math.inf

    def obey(self, call: Call) -> None:
        self.until, self.silence = call.until, call.silence

    def _arm(self) -> None:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline passed")
        if left < math.inf:
            cast("socket.socket", self).settimeout(min(left, self.silence))


class PlainSocket(_Deadlines, socket.socket):
    """A TCP socket under a deadline."""

    @override
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._arm()
        return super().recv_into(*args, **kwargs)

    @override
    def sendall(self, *args: Any, **kwargs: Any) -> None:
        self._arm()
        super().sendall(*args, **kwargs)


class TlsSocket(_Deadlines, ssl.SSLSocket):
    """A TLS socket under a deadline. Its handshake is bounded by the timeout inherited from the plain one."""

    @override
    def recv_into(self, *args: Any, **kwargs: Any) -> int:
        self._arm()
        return super().recv_into(*args, **kwargs)

    @override
    def send(self, *args: Any, **kwargs: Any) -> int:
        self._arm()
        return super().send(*args, **kwargs)


class _Head:
    """Reads the lines of a response head and stops at a size; http.client alone would take 6.5 MB."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._room = HEAD_BYTES

    def readline(self, limit: int) -> bytes:
        line = self._stream.readline(min(limit, self._room + 1))
        self._room -= len(line)
        if self._room < 0:
            raise NetError("too_large", f"the headers of the answer are over {HEAD_BYTES} bytes")
        return line

    def close(self) -> None:
        self._stream.close()


class BoundedResponse(http.client.HTTPResponse):
    """A response whose head is bounded, and which skips interim responses (http.client takes a 103 for the answer)."""

    @override
    def begin(self) -> None:
        body = self.fp
        self.fp = cast("Any", _Head(body))
        try:
            super().begin()
        finally:
            if self.fp is not None:
                self.fp = body

    def _read_status(self) -> tuple[str, int, str]:
        for _ in range(MOST_INTERIM):
            version, status, reason = super()._read_status()  # type: ignore[misc]
            if not http.HTTPStatus.CONTINUE <= status < http.HTTPStatus.OK:
                return version, status, reason
            if status == http.HTTPStatus.SWITCHING_PROTOCOLS:
                break
            http.client.parse_headers(cast("Any", self.fp))
        raise NetError("protocol", "the other side sent interim responses instead of an answer")


def _connect(host: str, port: int, *, tls: bool) -> PlainSocket:
    call = CALL.get()
    call.fresh = True
    addresses = call.resolver.addresses(host, port, call.left())
    for address in addresses:  # one forbidden answer refuses all: a mixed answer is an attack or a mistake
        if refusal := call.policy.refusal(address, port, plain=call.https_only and not tls):
            raise NetError("address", refusal)
    wrong = "no address"
    for place, address in enumerate(addresses):
        try:
            return _open(address, port, call, call.left() / (len(addresses) - place))
        except TimeoutError:
            wrong = f"{address} port {port} did not answer in time"
        except OSError as error:
            wrong = f"{address} port {port}: {error.strerror or error}"
    raise NetError("timeout" if time.monotonic() >= call.until else "connect", wrong)


def _open(address: Address, port: int, call: Call, seconds: float) -> PlainSocket:
    wire = PlainSocket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_STREAM)  # noqa: PLR2004
    try:
        wire.settimeout(seconds)
        wire.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire.connect((str(address), port))
    except BaseException:
        wire.close()
        raise
    wire.settimeout(min(call.left(), call.silence))  # a TLS handshake inherits it
    wire.obey(call)
    return wire


class _Guarded:
    """What both kinds of connection share. A kept-alive one is vetted again under the rules of each call that uses it."""

    response_class: Any = BoundedResponse
    sock: Any
    host: str
    port: int
    scheme: str

    def _new_conn(self) -> PlainSocket:
        return _connect(self.host, self.port, tls=self.scheme == "https")

    _held: list[bytes] | None = None

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is not None:
            self._vet_again(CALL.get())
        self._held = []
        try:
            super().request(*args, **kwargs)  # type: ignore[misc]
        finally:
            whole, self._held = b"".join(self._held), None
        self.send(whole)

    def send(self, piece: Any) -> None:
        """Hold back head and body until both are there: one system call and one packet instead of two."""
        if self._held is None:
            super().send(piece)  # type: ignore[misc]
        else:
            self._held.append(bytes(piece))

    def _vet_again(self, call: Call) -> None:
        self.sock.obey(call)
        if call.https_only and self.scheme == "http":
            peer = literal(self.sock.getpeername()[0])
            refusal = call.policy.refusal(peer, self.port, plain=True) if peer else "the peer is unknown"
            if refusal:
                raise NetError("address", refusal)


class PlainConnection(_Guarded, HTTPConnection):
    """http to a vetted address."""

    scheme = "http"


class TlsConnection(_Guarded, HTTPSConnection):
    """https to a vetted address; the name in the URL is what SNI asks for and the certificate must show."""

    scheme = "https"

    @override
    def connect(self) -> None:
        try:
            super().connect()
        except TimeoutError:
            raise NetError("timeout", "the TLS handshake did not end in time") from None
        except (OSError, ssl.CertificateError, urllib3.exceptions.SSLError) as wrong:
            raise NetError("tls", f"TLS failed: {wrong}") from None
        self.sock.obey(CALL.get())


class PlainPool(urllib3.HTTPConnectionPool):
    """Kept-alive http connections to one host."""

    ConnectionCls = PlainConnection


class TlsPool(urllib3.HTTPSConnectionPool):
    """Kept-alive https connections to one host, under one set of trusted authorities."""

    ConnectionCls = TlsConnection
