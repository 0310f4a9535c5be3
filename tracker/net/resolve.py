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

AT_ONCE = 64  # look-ups in flight per process: a dead name server ties up this many threads, and no more
SHARE = 16  # of them for one owner: whose names hang leaves room for the others


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

    def addresses(self, host: str, port: int, seconds: float, owner: Hashable = None) -> list[Address]:
        """Every address of the host. Raises NetError `dns` when there is none, or none within `seconds`.

        `owner` is for whom it is asked; None has no share of its own to keep to.
        """
        if address := literal(host):
            return [address]
        until = time.monotonic() + max(0.0, seconds)
        answer = self._asked((host, port), seconds, owner)
        try:
            found = [ipaddress.ip_address(text) for text in answer.result(max(0.0, until - time.monotonic()))]
        except TimeoutError:
            raise NetError("dns", f"the name look-up of {host} took too long") from None
        except (OSError, UnicodeError, ValueError) as wrong:
            raise NetError("dns", f"the name {host} cannot be resolved: {wrong}") from None
        if not found:
            raise NetError("dns", f"the name {host} has no address")
        return found

    def _asked(self, key: Key, seconds: float, owner: Hashable) -> Future[list[str]]:
        """The look-up of this name that is under way, or one that begins once there is a place for it."""
        with self._changed:
            if not self._changed.wait_for(lambda: key in self._running or self._has_room(owner), max(0.0, seconds)):
                raise NetError("dns", f"the name look-up of {key[0]} had to wait too long for others")
            answer = self._running.get(key)
            if answer is None:
                answer = self._running[key] = Future()
                self._held[owner] += 1
                threading.Thread(target=self._run, args=(key, owner, answer), daemon=True, name="resolve").start()
        return answer

    def _has_room(self, owner: Hashable) -> bool:
        return len(self._running) < self._at_once and (owner is None or self._held[owner] < self._share)

    def _run(self, key: Key, owner: Hashable, answer: Future[list[str]]) -> None:
        try:
            answer.set_result(list(self._look_up(*key)))
        except Exception as wrong:  # noqa: BLE001 - whatever it is, it belongs to those who asked
            answer.set_exception(wrong)
        finally:
            with self._changed:
                del self._running[key]
                self._held[owner] -= 1
                self._held += Counter()  # forgets who holds nothing
                self._changed.notify_all()
