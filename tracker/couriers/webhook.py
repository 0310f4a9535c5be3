"""Carries one webhook to its receiver and reports what happened. Never signs, retries, schedules or records."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from tracker.net import retry_after
from tracker.net.failures import ErrorClass, NetError
from tracker.net.guard import GuardedSession, Reply

LOGGED_BYTES = 2048
_SUCCESS, _REDIRECTS = range(200, 300), range(300, 400)


@dataclass(frozen=True, slots=True)
class Attempt:
    """What one attempt came to. It succeeded exactly when `error_class` is None."""

    duration_ms: int
    status_code: int | None
    error_class: ErrorClass | None
    response: str
    """The first 2 KB of the answer's body as text that Postgres can store: undecodable bytes and NULs are replaced."""
    retry_after: float | None
    """Seconds that the receiver asked us to wait, if it did."""
    detail: str = ""
    """What went wrong, in one sentence, when there was no answer."""

    @property
    def delivered(self) -> bool:
        return self.error_class is None


def send(
    session: GuardedSession,
    *,
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    deadline: float,
    ca: str | None = None,
) -> Attempt:
    """POST `body` and wait at most `deadline` seconds in all. Never raises for what the receiver or the network does.

    A 2xx status is success whatever becomes of the body after it; a 3xx is not followed.
    """
    began = time.monotonic()
    sent = {"Content-Type": "application/json", **headers}
    try:
        with session.open("POST", url, headers=sent, body=body, deadline=deadline, https_only=True, ca=ca) as reply:
            text = _beginning(reply)
            return Attempt(_since(began), reply.status, _judged(reply.status), text, retry_after.seconds(reply.headers))
    except NetError as wrong:
        return Attempt(_since(began), None, wrong.error_class, "", None, str(wrong))


def _judged(status: int) -> ErrorClass | None:
    if status in _SUCCESS:
        return None
    return "redirect" if status in _REDIRECTS else "status"


def _beginning(reply: Reply) -> str:
    found = b""
    try:
        while len(found) < LOGGED_BYTES and (more := reply.read(LOGGED_BYTES - len(found))):
            found += more
    except NetError:
        pass  # the status has arrived, and it alone decides; the body is for the log
    return found.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")


def _since(began: float) -> int:
    return round((time.monotonic() - began) * 1000)
