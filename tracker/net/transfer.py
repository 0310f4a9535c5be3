"""One reusable libcurl handle: its fixed options, what changes from ask to ask, and what libcurl's verdicts mean.

Never decides when to ask or how many at once; that is the fetcher's.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

import pycurl
from typing_extensions import override

import tracker
from tracker.core.addresses import Policy
from tracker.net.failures import ErrorClass

USER_AGENT = f"generation-tracker/{tracker.__version__}"
CONNECT_SECONDS = 10.0  # a host that has not answered a SYN by then is down; the ask's own deadline may be shorter


class Ask(NamedTuple):
    """One request. A named tuple and not a dataclass: thousands a second are made, and a frozen dataclass costs 3x."""

    key: Any
    """Handed back with the answer; the fetcher never looks at it."""
    method: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    """Share one tuple between asks: options are set again only when it differs."""
    body: bytes | None = None
    deadline: float = 15.0
    """Seconds in total, from the moment it is sent off to the last byte of its answer."""
    host_allowed: str = ""
    """`host:port` that may be reached whatever the policy says: the credential's own base URL."""

    @override
    def __repr__(self) -> str:
        return f"Ask(key={self.key!r}, method={self.method!r})"  # the rest may hold secrets


class Answer(NamedTuple):
    """What came back: a status with its body, or a failure with status 0. A 3xx is an answer; nothing is followed."""

    ask: Ask
    status: int
    headers: Mapping[str, str]
    """Lower case names; only `retry-after` (always in seconds) where given: a body is judged by itself."""
    body: bytes
    failure: ErrorClass | None
    detail: str


_OK = 200
_NO_HEADERS: Mapping[str, str] = {}
_TLS = frozenset({35, 51, 53, 54, 58, 59, 60, 64, 66, 77, 80, 82, 83, 90, 91, 98})
_TOO_LARGE = frozenset({pycurl.E_FILESIZE_EXCEEDED, 100})  # 100: a header line over libcurl's bound
# Two verdicts that libcurl tells apart by its message alone. Heads are bounded at 300 KB, interim responses included.
_RESOLVING = "Resolving timed out"
_HEAD_TOO_LARGE = "Too large response headers"
_GO, _ABORT = int(pycurl.PREREQFUNC_OK), int(pycurl.PREREQFUNC_ABORT)


class _Lent(socket.socket):
    """A socket that libcurl duplicates; ours is closed as soon as it has."""

    def __del__(self) -> None:
        self.close()


class Transfer:
    """A libcurl easy handle that is used for one ask after another.

    `trusted` ones serve asks to a credential's own host, without vetting. The others vet each address before a socket
    is opened for it, and the connection's peer again before each request, since libcurl shares kept-alive connections.
    """

    __slots__ = (
        "_chunks",
        "_closed",
        "_deadline",
        "_headers",
        "_policy",
        "_posted",
        "_refused",
        "_sent",
        "_verb",
        "ask",
        "curl",
        "trusted",
    )

    repeats = 0
    """How often it may be sent again when a kept connection dies before the answer."""

    def __init__(self, policy: Policy, *, trusted: bool, cap_bytes: int, ca_file: str, closed: set[int]) -> None:
        """`closed`: the local ports of kept connections that the other side has closed, as the multi knows them."""
        self._closed = closed
        self.ask: Ask | None = None
        self.trusted = trusted
        self._policy = policy
        self._refused = ""
        self._sent = 0
        self._chunks: list[bytes] = []
        self._headers: tuple[tuple[str, str], ...] | None = None
        self._deadline = 0.0
        self._verb = ""
        self._posted = False
        self.curl = self._handle(cap_bytes, ca_file)

    def _handle(self, cap_bytes: int, ca_file: str) -> Any:
        curl = pycurl.Curl()
        for option, value in (
            (pycurl.WRITEFUNCTION, self._chunks.append),  # a C function: no Python frame per chunk
            (pycurl.MAXFILESIZE_LARGE, cap_bytes),  # also stops bodies without a length, at the byte
            (pycurl.NOSIGNAL, 1),
            (pycurl.PROXY, ""),  # without this, libcurl reads proxies from the environment
            (pycurl.PROTOCOLS, pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS),
            (pycurl.FOLLOWLOCATION, 0),
            (pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_1_1),
            (pycurl.CAINFO, ca_file),
            (pycurl.SSL_VERIFYPEER, 1),
            (pycurl.SSL_VERIFYHOST, 2),
            (pycurl.CONNECTTIMEOUT_MS, int(CONNECT_SECONDS * 1000)),
            (pycurl.USERAGENT, USER_AGENT),
        ):
            curl.setopt(option, value)
        if not self.trusted:
            curl.setopt(pycurl.OPENSOCKETFUNCTION, self._open_socket)
        curl.setopt(pycurl.PREREQFUNCTION, self._once if self.trusted else self._once_to_vetted)
        return curl

    def _open_socket(self, _purpose: int, address: Any) -> socket.socket | int:
        if self._refuses(*address.addr[:2]):
            return int(pycurl.SOCKET_BAD)
        return _Lent(address.family, address.socktype, address.protocol)

    def _once(self, _peer: str, _local: str, _port: int, local_port: int) -> int:
        """Called before a request goes out, and again before libcurl repeats it: then it refuses.

        By itself libcurl sends a request again, at once and up to five times, when a kept connection dies before the answer: a relay
        that resets would be asked more often than schedule and budget allow. It also takes connections that the other side has closed
        before, since it looks for those but once a second; what goes out there reaches nobody and does not count.
        """
        if self._sent > self.repeats:
            return _ABORT
        if local_port in self._closed:
            self._closed.discard(local_port)
        else:
            self._sent += 1
        return _GO

    def _once_to_vetted(self, peer: str, local: str, port: int, local_port: int) -> int:
        return _ABORT if self._refuses(peer, port) else self._once(peer, local, port, local_port)

    def _refuses(self, host: str, port: int) -> bool:
        self._refused = self._policy.refusal(ipaddress.ip_address(host), port) or ""
        return bool(self._refused)

    def load(self, ask: Ask) -> None:
        """Set what differs from the previous ask. Raises ValueError or pycurl.error for one that cannot be sent."""
        self._refused, self._sent = "", 0
        self._chunks.clear()
        curl = self.curl
        curl.setopt(pycurl.URL, ask.url)
        if ask.headers != self._headers:
            curl.setopt(pycurl.HTTPHEADER, _lines(ask.headers))
            self._headers = ask.headers
        if ask.deadline != self._deadline:
            curl.setopt(pycurl.TIMEOUT_MS, max(1, int(ask.deadline * 1000)))
            self._deadline = ask.deadline
        if ask.body is not None or ask.method != self._verb or self._posted:
            self._set_verb(ask)
        self.ask = ask

    def _set_verb(self, ask: Ask) -> None:
        self._verb, self._posted = ask.method, ask.body is not None
        self.curl.setopt(pycurl.HTTPGET, 1)
        if ask.body is not None:
            self.curl.setopt(pycurl.POSTFIELDS, ask.body)
        if ask.method == ("GET" if ask.body is None else "POST"):
            self.curl.unsetopt(pycurl.CUSTOMREQUEST)
        else:
            self.curl.setopt(pycurl.CUSTOMREQUEST, ask.method)

    def answer(self) -> Answer:
        """What the finished transfer brought."""
        ask = self._release()
        chunks, get = self._chunks, self.curl.getinfo
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        # getinfo instead of a header callback: one Python call per header line would cost a fifth more CPU per answer.
        status = get(pycurl.RESPONSE_CODE)
        wait = 0 if status == _OK else get(pycurl.RETRY_AFTER)
        return Answer(ask, status, {"retry-after": str(wait)} if wait else _NO_HEADERS, body, None, "")

    def failure(self, code: int, message: str) -> Answer:
        """What a transfer that libcurl gave up amounts to."""
        ask = self._release()
        self._chunks.clear()
        return Answer(ask, 0, {}, b"", *self._verdict(code, message))

    def drop(self) -> None:
        """Forget an ask whose answer nobody waits for any more."""
        self.ask = None
        self._chunks.clear()

    def _release(self) -> Ask:
        ask, self.ask = self.ask, None
        if ask is None:
            raise RuntimeError("this transfer carries no ask")
        return ask

    def _verdict(self, code: int, message: str) -> tuple[ErrorClass, str]:
        if self._refused and code in {pycurl.E_COULDNT_CONNECT, pycurl.E_ABORTED_BY_CALLBACK}:
            return "address", self._refused
        if code == pycurl.E_ABORTED_BY_CALLBACK:
            return "protocol", "the connection ended before it was answered"
        if code == pycurl.E_COULDNT_RESOLVE_HOST or message.startswith(_RESOLVING):
            return "dns", message
        if code == pycurl.E_COULDNT_CONNECT:
            return "connect", message
        if code == pycurl.E_OPERATION_TIMEDOUT:
            return "timeout", message
        if code in _TOO_LARGE or message.startswith(_HEAD_TOO_LARGE):
            return "too_large", message
        return ("tls" if code in _TLS else "protocol"), message


def _lines(headers: tuple[tuple[str, str], ...]) -> list[str]:
    lines = [
        "Accept-Encoding: identity",
        "Expect:",
    ]  # identity: no body grows in memory; Expect: would cost a round trip
    for name, value in headers:
        if any(character in name + value for character in "\r\n\0"):
            raise ValueError(f"the header {name[:40]!r} has a line break or NUL in it")
        lines.append(f"{name}: {value}" if value else f"{name};")
    return lines
