"""Carries webhooks to their receivers and reports what happened. Never signs, retries, schedules or records."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from tracker.net.failures import ErrorClass
from tracker.net.post import Post, Posted

LONGEST_DETAIL = 500
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


def post(
    key: Any, *, url: str, body: bytes, headers: Mapping[str, str], deadline: float, ca: str | None = None,
    owner: Hashable = None,
) -> Post:  # fmt: skip
    """What the poster sends: `deadline` is in seconds, everything included; `owner` is for whom."""
    return Post(key, url, (("Content-Type", "application/json"), *headers.items()), body, deadline, ca, owner)


def attempt(posted: Posted) -> Attempt:
    """A 2xx status is success whatever became of the body after it; a 3xx is not followed."""
    milliseconds = round(posted.seconds * 1000)
    if posted.status is None:
        return Attempt(milliseconds, None, posted.failure, "", None, _storable(posted.detail)[:LONGEST_DETAIL])
    text = _storable(posted.body.decode("utf-8", "replace"))
    return Attempt(milliseconds, posted.status, _judged(posted.status), text, posted.retry_after)


def _judged(status: int) -> ErrorClass | None:
    if status in _SUCCESS:
        return None
    return "redirect" if status in _REDIRECTS else "status"


def _storable(text: str) -> str:
    return text.encode("utf-8", "replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")
