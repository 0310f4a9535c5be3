"""Chooses TCP ports. Never hands out the same port twice in one process, nor one that another tracker on this machine has chosen."""

from __future__ import annotations

import os
import socket
import sys

from tracker.errors import TrackerError

LOOPBACK = "127.0.0.1"
HIGHEST = 32_767
"""Above it the kernel hands out ports to outgoing connections, so a chosen port could be taken between two starts."""
LOWEST = 10_240
_reserved: dict[int, int | None] = {}
"""Ports that are ours, each with the open file that tells other processes so (on Linux)."""


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether a server could listen there now. Connections of an earlier server that are still fading do not count."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def reserve(port: int, host: str = LOOPBACK) -> bool:
    """Take this very port until the process ends; False when somebody has it."""
    if port in _reserved:
        return False
    # Two programs that choose at the same time would both find the port free. A name in Linux's abstract namespace belongs to one
    # process at a time, leaves no file behind, and is given back by the kernel however its owner ends.
    claim: socket.socket | None = None
    if sys.platform == "linux":
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            claim.bind(f"\0generation-tracker-port-{port}")
        except OSError:
            claim.close()
            return False
    if not is_free(port, host):
        if claim:
            claim.close()
        return False
    _reserved[port] = claim.detach() if claim else None
    return True


def free_port(preferred: int, host: str = LOOPBACK) -> int:
    """`preferred`, or the next free port after it (starting again from below at 32,767). It stays reserved until this process ends."""
    candidates: list[int] = [*range(preferred, HIGHEST + 1), *range(LOWEST, min(preferred, HIGHEST))]
    for port in candidates:
        if reserve(port, host):
            return port
    raise TrackerError(f"no free port between {LOWEST} and {HIGHEST} on {host}")


def release(port: int) -> None:
    """Give a reserved port back, once its server has stopped for good."""
    reservation = _reserved.pop(port, None)
    if reservation is not None:
        os.close(reservation)
