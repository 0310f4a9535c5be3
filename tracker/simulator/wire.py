"""The raw connection, and every way to put a reply on it other than plainly: slowly, in drops, cut short, reset, never.

It knows bytes and time, not HTTP's meaning. A conduct owns the connection until it returns.
"""

from __future__ import annotations

import asyncio
import socket
import struct

from tracker.simulator.messages import Conduct

# Large answers are handed over in pieces of this size, each only when the last has left, so that memory stays flat.
_PIECE = 256 * 1024

# What `SO_LINGER` needs so that closing sends a reset instead of an orderly end.
_LINGER_NOTHING = struct.pack("ii", 1, 0)


class Wire:
    """One TCP or TLS connection as conducts see it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        self.room = asyncio.Event()
        self.room.set()

    def write(self, payload: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(payload)

    async def pour(self, payload: bytes) -> None:
        """Write everything, waiting whenever the other side does not keep up."""
        view = memoryview(payload)
        for start in range(0, len(view), _PIECE):
            await self.room.wait()
            if self.transport.is_closing():
                return
            self.transport.write(view[start : start + _PIECE])

    def close(self) -> None:
        self.transport.close()

    def reset(self) -> None:
        """End the connection with RST; what was written and not yet sent is lost."""
        raw = self.transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOTHING)
        self.transport.abort()


async def poured(wire: Wire, payload: bytes) -> None:
    await wire.pour(payload)


async def reset(wire: Wire, _: bytes) -> None:
    wire.reset()


async def hang(_: Wire, __: bytes) -> None:
    """Say nothing until the other side goes away (which cancels this)."""
    await asyncio.Event().wait()


def slow(seconds: float) -> Conduct:
    async def play(wire: Wire, payload: bytes) -> None:
        await asyncio.sleep(seconds)
        await wire.pour(payload)

    return play


def drip(gap: float, piece: int = 1) -> Conduct:
    """`piece` bytes of the body every `gap` seconds, after a head that arrives at once."""

    async def play(wire: Wire, payload: bytes) -> None:
        begin = _body_at(payload)
        wire.write(payload[:begin])
        for start in range(begin, len(payload), piece):
            await asyncio.sleep(gap)
            await wire.room.wait()
            wire.write(payload[start : start + piece])

    return play


def spread(seconds: float) -> Conduct:
    """The whole body in twenty-five steps a second, evenly over `seconds`."""
    gap = 0.04

    async def play(wire: Wire, payload: bytes) -> None:
        steps = max(1, int(seconds / gap))
        await drip(gap, piece=max(1, -(-(len(payload) - _body_at(payload)) // steps)))(wire, payload)

    return play


async def cut(wire: Wire, payload: bytes) -> None:
    """Head and half of the body, then an orderly end: Content-Length promised more."""
    await wire.pour(payload[: _half_of_body(payload)])
    wire.close()


async def cut_by_reset(wire: Wire, payload: bytes) -> None:
    """Head and half of the body, then a reset, a moment later so that the half is not lost with it."""
    await wire.pour(payload[: _half_of_body(payload)])
    await asyncio.sleep(0.05)
    wire.reset()


async def half_close(wire: Wire, payload: bytes) -> None:
    """Head and half of the body, then only our direction is closed, and the connection stays."""
    await wire.pour(payload[: _half_of_body(payload)])
    if wire.transport.can_write_eof():
        wire.transport.write_eof()
        await asyncio.Event().wait()
    wire.close()  # TLS cannot close one direction alone


def _body_at(payload: bytes) -> int:
    return payload.index(b"\r\n\r\n") + 4


def _half_of_body(payload: bytes) -> int:
    begin = _body_at(payload)
    return begin + (len(payload) - begin) // 2
