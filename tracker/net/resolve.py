"""Names to addresses, within a time: a resolver that hangs can hold up neither its caller nor the process.

Never caches: an answer is vetted and connected to at once, and kept-alive connections save the look-ups.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import Future

from tracker.core.addresses import Address, literal
from tracker.net.failures import NetError

LookUp = Callable[[str, int], Iterable[str]]
Key = tuple[str, int]

AT_ONCE = 32  # look-ups in flight per process: a dead name server ties up this many threads, and no more
SHARE = 8  # of them for one owner: whose names hang leaves room for the others


def system(host: str, port: int) -> list[str]:
    """What the operating system's resolver knows, in its order of preference."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Resolver:
    """Looks up on daemon threads, since the system's resolver can neither be interrupted nor given a deadline.

    A look-up holds its place until the system's resolver returns, which may be long after whoever asked has gone. So each name
    has one at a time, whose answer goes to all who ask meanwhile, and each owner a share of the places.
    """

    def __init__(self, look_up: LookUp = system, at_once: int = AT_ONCE, share: int = SHARE) -> None:
        self._look_up, self._at_once, self._share = look_up, at_once, share
        self._running: dict[Key, Future[list[str]]] = {}
        self._held: Counter[Hashable] = Counter()
        self._changed = threading.Condition()

    def addresses(self, host: str, port: int, seconds: float) -> list[Address]:
        """Every address of the host. Raises NetError `dns` when there is none, or none within `seconds`."""
        if address := literal(host):
            return [address]
        until = time.monotonic() + max(0.0, seconds)
        with self._changed:
            answer = self._changed.wait_for(lambda: self._begun((host, port), None), max(0.0, seconds))
        if answer is None:
            raise NetError("dns", f"the name look-up of {host} had to wait too long for others")
        return read(host, answer, until - time.monotonic())

    def begin(self, host: str, port: int, owner: Hashable) -> Future[list[str]] | None:
        """The look-up of a name that is under way, or one that begins now; None while there is no place for it, or none for its owner."""
        with self._changed:
            return self._begun((host, port), owner)

    def _begun(self, key: Key, owner: Hashable) -> Future[list[str]] | None:
        if key not in self._running and self._has_room(owner):
            answer: Future[list[str]] = Future()
            threading.Thread(target=self._run, args=(key, owner, answer), daemon=True, name="resolve").start()
            self._running[key] = answer
            self._held[owner] += 1
        return self._running.get(key)

    def _has_room(self, owner: Hashable) -> bool:
        return len(self._running) < self._at_once and (owner is None or self._held[owner] < self._share)

    def _run(self, key: Key, owner: Hashable, answer: Future[list[str]]) -> None:
        found, wrong = [], None
        try:
            found = list(self._look_up(*key))
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who asked
            wrong = error
        with self._changed:
            del self._running[key]
            self._held[owner] -= 1
            self._held += Counter()  # forgets who holds nothing
            self._changed.notify_all()
        if wrong is None:
            answer.set_result(found)
        else:
            answer.set_exception(wrong)


def read(host: str, answer: Future[list[str]], seconds: float) -> list[Address]:
    """What a look-up brought within `seconds`. Raises NetError `dns`."""
    try:
        found = [ipaddress.ip_address(text) for text in answer.result(max(0.0, seconds))]
    except TimeoutError:
        raise NetError("dns", f"the name look-up of {host} took too long") from None
    except (OSError, UnicodeError, ValueError) as wrong:
        raise NetError("dns", f"the name {host} cannot be resolved: {wrong}") from None
    if not found:
        raise NetError("dns", f"the name {host} has no address")
    return found
