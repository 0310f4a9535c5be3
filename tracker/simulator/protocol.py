"""The HTTP/1.1 server: keep-alive, pipelining in order, upstream latency, and replies that are played instead of written.

It knows requests, replies and connections; what a path means is `routes.py`'s business.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from http import HTTPStatus
from typing import cast

import httptools
from typing_extensions import override

from tracker.simulator import routes
from tracker.simulator.messages import Reply, Request
from tracker.simulator.wire import Wire
from tracker.simulator.world import World

# Enough for a hundred thousand ids in one batch; more is refused.
_LARGEST_BODY = 8 * 1024 * 1024

# Requests of one connection that may wait for their turn before we stop reading from it.
_PIPELINE = 64


class Connection(asyncio.Protocol):
    """One client's connection. Requests are answered in the order they came, as long as the set latency stays the same."""

    def __init__(self, world: World, connections: set[Connection], scheme: str) -> None:
        self._world, self._connections, self._scheme = world, connections, scheme
        self._parser = httptools.HttpRequestParser(self)
        self._waiting: deque[tuple[Request, Reply, bool]] = deque()
        self._busy = False
        self._playing: asyncio.Task[None] | None = None
        self._open = 0  # requests counted as begun and not yet as ended

    # What the transport calls.

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._wire = Wire(cast(asyncio.Transport, transport))  # uvloop's own are not its subclasses
        self._connections.add(self)
        self._world.stats.connected()

    @override
    def connection_lost(self, _: Exception | None) -> None:
        self._connections.discard(self)
        self._world.stats.disconnected()
        if self._playing is not None:
            self._playing.cancel()
        self._waiting.clear()
        while self._open:
            self._end()
        self._wire.room.set()

    @override
    def data_received(self, payload: bytes) -> None:
        try:
            self._parser.feed_data(payload)
        except httptools.HttpParserUpgrade:
            self.abort()
        except httptools.HttpParserCallbackError as error:
            traceback.print_exception(error.__context__)  # our own mistake: say so, and let the client see it as one
            self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "the simulator itself failed; its standard error says why")
        except httptools.HttpParserError as error:
            self._refuse(HTTPStatus.BAD_REQUEST, str(error))

    @override
    def pause_writing(self) -> None:
        self._wire.room.clear()

    @override
    def resume_writing(self) -> None:
        self._wire.room.set()

    # What the parser calls.

    def on_message_begin(self) -> None:
        self._url, self._headers, self._body, self._size = b"", dict[str, str](), list[bytes](), 0

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, text: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = text.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self._wire.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size <= _LARGEST_BODY:
            self._body.append(piece)

    def on_message_complete(self) -> None:
        if self._size > _LARGEST_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is over 8 MB")
            return
        path, _, query = self._url.decode("latin-1").partition("?")
        method = self._parser.get_method().decode()
        keep = self._parser.should_keep_alive()
        self._take(Request(method, path, query, self._headers, b"".join(self._body), self._scheme, keep))

    # The order of answers.

    def _take(self, request: Request) -> None:
        """Decide the answer at once, as a provider would, and send it in its turn after the set latency."""
        counted = not request.path.startswith("/simulator/")
        if counted:
            self._world.stats.begin(routes.pattern(request))
            self._open += 1
        reply = routes.answer(self._world, request)
        latency = self._world.conditions.latency_ms / 1000 if counted else 0.0
        if not latency and not self._busy and reply.conduct is None:
            self._send(request, reply, counted=counted)
            return
        if latency:
            asyncio.get_running_loop().call_later(latency, self._enqueue, request, reply, counted)
        else:
            self._enqueue(request, reply, counted)

    def _enqueue(self, request: Request, reply: Reply, counted: bool) -> None:
        self._waiting.append((request, reply, counted))
        if len(self._waiting) > _PIPELINE:
            self._wire.transport.pause_reading()
        self._next()

    def _next(self) -> None:
        while self._waiting and not self._busy and not self._wire.transport.is_closing():
            request, reply, counted = self._waiting.popleft()
            if reply.conduct is None:
                self._send(request, reply, counted=counted)
            else:
                self._busy = True
                self._playing = asyncio.get_running_loop().create_task(self._play(request, reply, counted=counted))

    def _send(self, request: Request, reply: Reply, *, counted: bool) -> None:
        self._wire.write(_shaped(request, reply).encode(keep_alive=request.keep_alive))
        self._finish(request, reply, counted=counted)

    async def _play(self, request: Request, reply: Reply, *, counted: bool) -> None:
        assert reply.conduct is not None  # noqa: S101 - checked by the only caller
        await reply.conduct(self._wire, _shaped(request, reply).encode(keep_alive=request.keep_alive))
        self._busy, self._playing = False, None
        self._finish(request, reply, counted=counted)
        if not self._wire.transport.is_closing():
            self._wire.transport.resume_reading()
            self._next()

    def _finish(self, request: Request, reply: Reply, *, counted: bool) -> None:
        if counted:
            self._world.stats.statuses[reply.status] += 1
            self._end()
        if not request.keep_alive:
            self._wire.close()

    def _end(self) -> None:
        self._open -= 1
        self._world.stats.end()

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._wire.write(Reply.json({"message": message}, status).encode(keep_alive=False))
        self._wire.close()

    def abort(self) -> None:
        self._wire.transport.abort()


def _shaped(request: Request, reply: Reply) -> Reply:
    """An answer to HEAD has the length of the body and not the body."""
    return reply.but(body=b"", length=len(reply.body)) if request.method == "HEAD" else reply
