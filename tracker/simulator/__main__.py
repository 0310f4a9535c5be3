"""The command `python -m tracker.simulator`: options, one listening socket, one line when ready, an end at once on SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
import sys
from collections.abc import Callable, Sequence

from tracker.errors import ConfigurationError
from tracker.simulator.misbehaviour import listing
from tracker.simulator.protocol import Connection
from tracker.simulator.world import BATCH_SHAPES, Conditions, World

# Luma's mean of 111 s becomes 9 s, so that a demo's generations end within about 4 to 20 s.
_DEFAULT_SPEED = 12.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until SIGTERM or Ctrl-C; 0 after an orderly end, 1 with one line on standard error when it cannot start."""
    options = _parser().parse_args(arguments)
    if options.list:
        sys.stdout.write(listing() + "\n")
        return 0
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(options))
    except (ConfigurationError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


async def _serve(options: argparse.Namespace) -> None:
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    tls = _tls(*options.tls) if options.tls else None
    scheme = "https" if tls else "http"
    conditions = Conditions(options.key, options.batch, not_found=options.not_found, latency_ms=options.latency_ms)
    world = World(seed=options.seed, speed=options.speed, failures=options.failures, conditions=conditions)
    connections: set[Connection] = set()
    # Benchmarks open thousands of connections at once: the default backlog of 100 would drop some.
    try:
        server = await loop.create_server(
            lambda: Connection(world, connections, scheme), options.host, options.port, ssl=tls, backlog=4096
        )
    except OSError as error:
        wrong = f"cannot listen on {options.host}:{options.port} ({error.strerror or error})"
        raise ConfigurationError("--port", wrong, "choose another, or 0 for a free one") from error
    port = server.sockets[0].getsockname()[1]
    sys.stdout.write(
        f"simulator ready at {scheme}://{options.host}:{port} (seed {options.seed}, speed {options.speed:g})\n"
    )
    sys.stdout.flush()
    await ended.wait()
    server.close()
    for connection in list(connections):
        connection.abort()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tracker.simulator", description="A relay that misbehaves on demand."
    )
    add = parser.add_argument
    add("--host", default="127.0.0.1")
    add("--port", type=int, default=8787, help="0 picks a free one (default 8787)")
    add("--seed", type=int, default=1, help="decides every drawn duration and fault (default 1)")
    add(
        "--speed",
        type=_positive,
        default=_DEFAULT_SPEED,
        help="drawn durations are divided by it; 1 is real time (default 12)",
    )
    add(
        "--failures",
        type=_share,
        default=0.0,
        help="share of the drawn generations that fail (default 0; real ones: about 0.03)",
    )
    add("--latency-ms", type=float, default=0.0, help="time every answer takes")
    add("--key", default="", help="the only bearer that is accepted (default: any)")
    add(
        "--batch",
        choices=BATCH_SHAPES,
        default=BATCH_SHAPES[0],
        help="shape of the batch answer, or `none`: no such path",
    )
    add("--not-found", type=int, choices=(400, 404), default=400, help="status for an unknown task")
    add("--tls", nargs=2, metavar=("CERT", "KEY"), help="PEM files; serve https")
    add("--list", action="store_true", help="print every misbehaviour and end")
    return parser


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _tls(certificate: str, key: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except OSError as error:
        wrong = f"cannot load {certificate} and {key} ({error})"
        raise ConfigurationError("--tls", wrong, "give a certificate and its key as PEM files") from error
    return context


def _positive(text: str) -> float:
    number = float(text)
    if number <= 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return number


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError("must be from 0 to 1")
    return number


if __name__ == "__main__":
    sys.exit(main())
