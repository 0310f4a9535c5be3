"""Names to addresses, within a time: a resolver that hangs can hold up neither its caller nor the process.

Never caches: an answer is vetted and connected to at once, and kept-alive connections save the look-ups.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from tracker.core.addresses import Address, literal
from tracker.net.failures import NetError

LookUp = Callable[[str, int], Iterable[str]]

AT_ONCE = 32  # look-ups in flight per process: a dead name server ties up this many threads, and no more


def system(host: str, port: int) -> list[str]:
    """What the operating system's resolver knows, in its order of preference."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Resolver:
    """Looks up on daemon threads, since the system's resolver can neither be interrupted nor given a deadline."""

    def __init__(self, look_up: LookUp = system, at_once: int = AT_ONCE) -> None:
        self._look_up = look_up
        self._room = threading.BoundedSemaphore(at_once)

    def addresses(self, host: str, port: int, seconds: float) -> list[Address]:
        """Every address of the host. Raises NetError `dns` when there is none, or none within `seconds`."""
        if address := literal(host):
            return [address]
        if not self._room.acquire(timeout=max(0.0, seconds)):
            raise NetError("dns", f"the name look-up of {host} had to wait too long for others")
        answer: Future[list[str]] = Future()
        threading.Thread(target=self._run, args=(host, port, answer), daemon=True, name="resolve").start()
        try:
            found = [ipaddress.ip_address(text) for text in answer.result(max(0.0, seconds))]
        except TimeoutError:
            raise NetError("dns", f"the name look-up of {host} took too long") from None
        except (OSError, UnicodeError, ValueError) as wrong:
            raise NetError("dns", f"the name {host} cannot be resolved: {wrong}") from None
        if not found:
            raise NetError("dns", f"the name {host} has no address")
        return found

    def _run(self, host: str, port: int, answer: Future[list[str]]) -> None:
        try:
            answer.set_result(list(self._look_up(host, port)))
        except Exception as wrong:  # noqa: BLE001 - whatever it is, it belongs to the one who asked
            answer.set_exception(wrong)
        finally:
            self._room.release()
