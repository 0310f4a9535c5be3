"""A webhook receiver that stamps arrivals: `python -m bench.receiver --port N`. CLOCK_MONOTONIC is one clock for a whole machine.

`POST /hook/...` answers 204 at once, `/slow/...` after 100 ms, `/hang/...` never. `/report` gives and forgets what came.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

import orjson
import uvloop

from bench.upstream import Connection, Upstream, reply

SLOW = 0.1
NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"


class Arrivals(Upstream):
    """Moment, path and generation of each whole request."""

    def __init__(self) -> None:
        super().__init__(b"", 0.0)
        self.came: list[tuple[float, str, str]] = []


class Incoming(Connection):
    """One sender's connection."""

    def __init__(self, arrivals: Arrivals) -> None:
        super().__init__(arrivals)
        self._arrivals = arrivals

    def answer(self, path: bytes, body: bytes) -> None:
        if path == b"/report":
            came, self._arrivals.came = self._arrivals.came, []
            self._transport.write(reply(200, orjson.dumps(came)))
            return
        moment = time.monotonic()
        generation = (orjson.loads(body).get("data") or {}).get("id", "")
        self._arrivals.came.append((moment, path.decode(), generation))
        if path.startswith(b"/slow"):
            asyncio.get_running_loop().call_later(SLOW, self._transport.write, NO_CONTENT)
        elif not path.startswith(b"/hang"):
            self._transport.write(NO_CONTENT)


async def _serve(port: int) -> None:
    arrivals = Arrivals()
    server = await asyncio.get_running_loop().create_server(lambda: Incoming(arrivals), "127.0.0.1", port, backlog=4096)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    async with server:
        await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
