"""What can go wrong on the way out, in the words that attempts and observations are stored with."""

from __future__ import annotations

from typing import Literal

from tracker.errors import TrackerError

ErrorClass = Literal["dns", "address", "connect", "tls", "timeout", "protocol", "redirect", "too_large", "status"]


class NetError(TrackerError):
    """A request that brought no usable answer. `error_class` says at which step; the message says what happened."""

    code = "unreachable"

    def __init__(self, error_class: ErrorClass, detail: str) -> None:
        super().__init__(detail)
        self.error_class: ErrorClass = error_class


class WrongProcessError(TrackerError):
    """Connections were carried over a fork: two processes would write into one TLS stream."""

    code = "wrong_process"

    def __init__(self, what: str, owner: int, here: int) -> None:
        super().__init__(f"this {what} belongs to process {owner} and was used in {here}; make one after the fork")
