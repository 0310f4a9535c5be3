"""A relay with canned answers, as light as asyncio allows: what is asked of it is the client's work, not this server's.

`python -m bench.upstream --template FILE` answers `GET /luma/generations/{id}` and `POST /luma/tasks` from memory, with the bytes that the
simulator gives for a generation that goes on and on; below `/single` there is no batch path. `/stats` tells what was asked, and when.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
import time
from pathlib import Path
from typing import cast

import orjson
import uvloop

HELD_PLACE = b"00000000-0000-4000-8000-000000000000"
"""Stands in the template where the id goes; every id has its length."""
ENDED = b"ffffffff"
"""How the ids of generations begin that have ended, where there is an answer for them."""
HEAD = b"HTTP/1.1 %d OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"


class Upstream:
    """Everything the connections share."""

    def __init__(self, template: bytes, latency: float, ended: bytes | None = None) -> None:
        self.template, self.latency, self.ended = template, latency, ended or template
        self.reset()

    def reset(self) -> None:
        self.requests = self.polls = self.in_flight = self.most_in_flight = 0
        self.first = self.last = 0.0

    def count(self, polls: int) -> None:
        now = time.monotonic()
        self.first = self.first or now
        self.last = now
        self.requests += 1
        self.polls += polls
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)

    def report(self) -> bytes:
        names = ("requests", "polls", "in_flight", "most_in_flight", "first", "last")
        return orjson.dumps({name: getattr(self, name) for name in names})

    def one(self, task_id: bytes) -> bytes:
        return (self.ended if task_id.startswith(ENDED) else self.template).replace(HELD_PLACE, task_id)


class Connection(asyncio.Protocol):
    """One keep-alive connection. Requests are small and come whole or in few pieces; nothing here defends itself."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass of it

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            begins = end + 4
            ends = begins + (_content_length(head) if head.startswith(b"POST") else 0)
            if len(self._buffer) < ends:
                return
            body, self._buffer = self._buffer[begins:ends], self._buffer[ends:]
            self.answer(head.split(b" ", 2)[1], body)

    def answer(self, path: bytes, body: bytes) -> None:
        single = path.removeprefix(b"/single")
        if single.startswith(b"/luma/generations/"):
            self._send(200, self._upstream.one(single[18:]), polls=1)
        elif path == b"/luma/tasks":
            ids = orjson.loads(body)["ids"]
            self._send(200, b"[" + b",".join(self._upstream.one(i.encode()) for i in ids) + b"]", polls=len(ids))
        elif path == b"/stats":
            self._transport.write(reply(200, self._upstream.report()))
        elif path == b"/reset":
            self._upstream.reset()
            self._transport.write(reply(200, b"{}"))
        else:
            self._transport.write(reply(404, b'{"message":"no such path"}'))

    def _send(self, status: int, body: bytes, *, polls: int) -> None:
        self._upstream.count(polls)
        if self._upstream.latency:
            asyncio.get_running_loop().call_later(self._upstream.latency, self._write, reply(status, body))
        else:
            self._write(reply(status, body))

    def _write(self, reply: bytes) -> None:
        self._upstream.in_flight -= 1
        self._transport.write(reply)


def _content_length(head: bytes) -> int:
    name = b"\r\ncontent-length:"
    at = head.lower().find(name)
    return int(head[at + len(name) :].split(b"\r\n", 1)[0]) if at >= 0 else 0


def reply(status: int, body: bytes) -> bytes:
    return HEAD % (status, len(body), body)


async def _serve(options: argparse.Namespace) -> None:
    tls = None
    if options.tls:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(options.tls)
    ended = options.ended.read_bytes() if options.ended else None
    upstream = Upstream(options.template.read_bytes(), options.latency_ms / 1000, ended)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(upstream), "127.0.0.1", options.port, ssl=tls, backlog=4096)
    control = await loop.create_server(lambda: Connection(upstream), "127.0.0.1", options.control, backlog=64)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with server, control:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--control", type=int, required=True, help="plain port for /stats and /reset")
    parser.add_argument("--template", type=Path, required=True)
    parser.add_argument("--ended", type=Path, help="what is answered about ids that begin with ffffffff")
    parser.add_argument("--latency-ms", type=float, default=0.0)
    parser.add_argument("--tls", type=Path, help="PEM file with key and certificate")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
