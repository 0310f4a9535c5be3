"""The guarded way out for single requests (webhooks, downloads): `requests` on connections that vet, and that end in time.

Never follows a redirect, reads the environment, keeps a cookie, decodes a body or verifies less than everything.
"""

from __future__ import annotations

import os
import re
import ssl
import threading
import time
from collections.abc import Mapping
from functools import lru_cache
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import certifi
import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from typing_extensions import override

from tracker.core.addresses import Policy, check_form
from tracker.net.failures import NetError, WrongProcessError
from tracker.net.resolve import LookUp, Resolver, system
from tracker.net.transfer import USER_AGENT
from tracker.net.wire import CALL, Call, PlainPool, TlsPool, TlsSocket

LONGEST_URL = 8192  # signed links to object stores are longer than what people register
HOSTS_KEPT = 64  # pools of kept-alive connections; beyond, the least recently used is closed
STALE_TRIES = 3  # kept-alive connections that died unnoticed, before giving up: each try that fails discards one
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect", "te", "trailer", "upgrade"})
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")


class Reply:
    """A status and headers that have arrived, and a body to be read piecewise under the call's deadline.

    Close it, or use it in a `with`: a body read to its end gives the connection back, any other closes it.
    """

    def __init__(self, response: requests.Response, call: Call) -> None:
        self._raw: urllib3.HTTPResponse = response.raw
        self._call = call
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers  # looked up without regard to case

    def read(self, most: int) -> bytes:
        """The next bytes, at most so many, as soon as there are any; empty at the end.

        Raises NetError: `timeout` at the deadline or after a silence, `protocol` when the body breaks off.
        """
        try:
            return self._raw.read1(most, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as wrong:
            raise _as_net_error(wrong, self._call) from None

    def close(self) -> None:
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class GuardedSession:
    """One per process, made after the fork; any number of threads may use it at once.

    `look_up` replaces the system's resolver and `ca_file` certifi's bundle. In another process than its maker's it
    raises WrongProcessError.
    """

    def __init__(
        self, policy: Policy, *, look_up: LookUp = system, ca_file: str | None = None, kept_per_host: int = 64
    ) -> None:
        self._policy = policy
        self._resolver = Resolver(look_up)
        self._ca_file = ca_file or certifi.where()
        self._adapter = _Adapter(pool_connections=HOSTS_KEPT, pool_maxsize=kept_per_host)
        self._making = threading.Lock()
        self._contexts = lru_cache(maxsize=HOSTS_KEPT)(self._context)
        self._pid = os.getpid()

    def open(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        deadline: float,
        silence: float = 60.0,
        https_only: bool = False,
        ca: str | None = None,
    ) -> Reply:
        """Send one request and return once the headers of the answer are there, whatever its status.

        `deadline` bounds everything until the last byte of the body is read, in seconds from now; `silence` bounds each
        gap without a byte. `https_only` accepts plain http only towards what the policy allows. `ca` is a PEM text with
        the only authorities to trust. Raises NetError.
        """
        if os.getpid() != self._pid:
            raise WrongProcessError("session", self._pid, os.getpid())
        if wrong := check_form(url, LONGEST_URL):
            raise NetError("address", wrong)
        until = time.monotonic() + deadline
        context = self._trusting(ca) if url[:6].lower() == "https:" else None
        call = Call(self._policy, self._resolver, until, silence, https_only, context)
        return Reply(self._send(_prepared(method, url, headers or {}, body), call), call)

    def close(self) -> None:
        """Close all kept-alive connections."""
        self._adapter.close()

    def _send(self, request: requests.PreparedRequest, call: Call) -> requests.Response:
        token = CALL.set(call)
        try:
            for _ in range(STALE_TRIES):
                sent = self._try(request, call)
                if isinstance(sent, requests.Response):
                    return sent
                if call.fresh or sent.error_class != "protocol":
                    raise sent
            raise NetError("protocol", "kept-alive connections died again and again")
        finally:
            CALL.reset(token)

    def _try(self, request: requests.PreparedRequest, call: Call) -> requests.Response | NetError:
        call.fresh = False
        try:
            return self._adapter.send(request, stream=True)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError) as wrong:
            return _as_net_error(wrong, call)

    def _trusting(self, ca: str | None) -> ssl.SSLContext:
        with self._making:  # reading a bundle takes 20 ms, and 64 threads that begin together need it once
            return self._contexts(ca)

    def _context(self, ca: str | None) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=None if ca else self._ca_file, cadata=ca)
        except (ssl.SSLError, ValueError) as wrong:
            raise NetError("tls", f"the endpoint's own CA is not a valid PEM text: {wrong}") from None
        context.sslsocket_class = TlsSocket
        return context


class _Adapter(HTTPAdapter):
    """Requests' adapter on guarded pools; trust comes from the call's context alone."""

    @override
    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **pool_kwargs: Any) -> None:
        super().init_poolmanager(connections, maxsize, block, **pool_kwargs)
        self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}

    @override
    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        """The pool of the URL's host and of the call's trust; there are no proxies to choose from."""
        scheme, host, port = _target(request.url)
        trust = {"ssl_context": CALL.get().context} if scheme == "https" else {}
        return self.poolmanager.connection_from_host(host, port, scheme, pool_kwargs=trust)

    @override
    def request_url(self, request: Any, proxies: Any) -> str:
        return str(request.path_url)

    @override
    def build_response(self, req: Any, resp: Any) -> requests.Response:
        """What a Reply needs, without the cookies and the guessed encoding of requests' own."""
        response = requests.Response()
        response.status_code, response.headers, response.raw = resp.status, resp.headers, resp
        return response

    @override
    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Leave the pool's context alone: requests would add its own bundle to it."""


def _prepared(method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> requests.PreparedRequest:
    request = requests.PreparedRequest()
    request.method = method
    try:
        request.url = _prepared_url(url)
    except requests.RequestException as wrong:
        raise NetError("address", f"it is not a valid URL: {wrong}") from None
    request.headers = CaseInsensitiveDict({"User-Agent": USER_AGENT, "Accept": "*/*"})
    for name, value in headers.items():
        if name.lower() in _OURS or not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise NetError(
                "protocol", f"the header {name[:40]!r} cannot be sent; remove it, or keep it to one Latin-1 line"
            )
        request.headers[name] = value
    request.headers["Accept-Encoding"] = "identity"  # a gzip bomb stays as small as it is on the wire
    if body is not None:
        request.headers["Content-Length"] = str(len(body))
    request.body = body
    return request


@lru_cache(maxsize=1024)
def _target(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


@lru_cache(maxsize=1024)
def _prepared_url(url: str) -> str | None:
    request = requests.PreparedRequest()
    request.prepare_url(url, None)
    return request.url


def _as_net_error(wrong: BaseException, call: Call) -> NetError:
    """The class of whatever requests, urllib3 and http.client wrapped into each other."""
    cause: BaseException | None = wrong
    while cause is not None:
        if isinstance(cause, (TimeoutError, urllib3.exceptions.TimeoutError)):
            late = time.monotonic() >= call.until
            return NetError("timeout", "the deadline passed" if late else "the other side fell silent")
        cause = cause.__cause__ or cause.__context__ or _wrapped(cause)
    return NetError("protocol", f"the answer broke off or was no HTTP: {str(wrong)[:200]}")


def _wrapped(error: BaseException) -> BaseException | None:
    inner = getattr(error, "reason", None) or (error.args[-1] if error.args else None)
    return inner if isinstance(inner, BaseException) else None
