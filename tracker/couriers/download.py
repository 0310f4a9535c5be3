"""Carries one file from a link to a partial file on disk, whole and verified, or says exactly why not.

Never renames to the final place (the store does), asks a provider for a fresh link, or tries again by itself.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from tracker.core.addresses import check_form
from tracker.couriers.transit import (
    Begun,
    Code,
    DownloadError,
    Fetched,
    Limits,
    Partial,
    Progress,
    StartOverError,
    Transit,
    Watch,
)
from tracker.net.failures import NetError
from tracker.net.guard import LONGEST_URL, GuardedSession, Reply

__all__ = ["Begun", "Code", "DownloadError", "Fetched", "Limits", "Partial", "Progress", "download", "pass_through"]

MOST_HOPS = 5
DEFAULT_LIMITS = Limits()
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_WORTHLESS = frozenset({"wrong_media", "too_large", "corrupt"})


def download(
    session: GuardedSession,
    url: str,
    into: Path,
    *,
    resume: Partial | None = None,
    headers: Mapping[str, str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
    begun: Begun | None = None,
) -> Fetched:
    """Fetch `url` into the file `into`, going on from `resume` when the server still has the same file.

    `begun` is told before the first byte what to remember for a resumption, `progress` how far it is.
    `headers` may hold credentials, under whatever name: at a redirect to another origin all are dropped. Raises DownloadError, whose
    `partial` is what to pass as `resume` next time; without one the file is removed.
    """
    trip = _Trip(session, url, dict(headers or {}), limits)
    watch = Watch(progress, begun)
    have = resume if resume and resume.path == into and resume.size else None
    try:
        return _attempt(trip, into, have, watch)
    except StartOverError:
        return _attempt(trip, into, None, watch)


def pass_through(
    session: GuardedSession,
    url: str,
    into: Path,
    deliver: Callable[[str, Iterator[bytes]], None],
    *,
    headers: Mapping[str, str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
    progress: Progress | None = None,
) -> Fetched:
    """Hand the bytes of `url` to `deliver` without a file, for one that does not fit the disk; a try cannot be gone on from.

    The iterator that `deliver` gets raises DownloadError when the bytes are not right: what it stores so far must not
    be kept. `into` is only named in the result.
    """
    trip = _Trip(session, url, dict(headers or {}), limits)
    try:
        with trip.open(None) as reply:
            return Transit(reply, into, None, limits, Watch(progress)).through(deliver)
    except (NetError, DownloadError, OSError) as wrong:
        raise _as_download_error(wrong, trip, into, begun_to_read=True) from None


def _attempt(trip: _Trip, into: Path, have: Partial | None, watch: Watch) -> Fetched:
    transit: Transit | None = None
    try:
        with trip.open(have) as reply:
            transit = Transit(reply, into, have, trip.limits, watch)
            return transit.run()
    except (NetError, DownloadError, OSError) as wrong:
        failure = _as_download_error(wrong, trip, into, begun_to_read=transit is not None)
        if failure.code not in _WORTHLESS:
            failure.partial = transit.partial if transit else have
        if failure.partial is None:
            into.unlink(missing_ok=True)
        raise failure from None


class _Trip:
    """The way to the file: redirects followed by hand, each hop vetted by the session, all under one deadline."""

    def __init__(self, session: GuardedSession, url: str, headers: dict[str, str], limits: Limits) -> None:
        self.limits = limits
        self.until = time.monotonic() + limits.deadline
        self._session, self._url, self._headers = session, url, headers

    def open(self, begun: Partial | None) -> Reply:
        """The first answer that is no redirect. Raises NetError; DownloadError for redirects that lead nowhere."""
        url, headers = self._url, dict(self._headers)
        going_on = {"Range": f"bytes={begun.size}-", "If-Range": begun.etag} if begun else {}
        for _ in range(MOST_HOPS + 1):
            left = self.until - time.monotonic()
            reply = self._session.open(
                "GET", url, headers=headers | going_on, deadline=left, silence=self.limits.silence
            )
            onward = reply.headers.get("location") if reply.status in _REDIRECTS else None
            if onward is None:
                return reply
            reply.close()
            onward = _absolute(url, onward)
            if _origin(onward) != _origin(url):
                headers = {}
            url = onward
        raise DownloadError("redirect", f"the link leads on through more than {MOST_HOPS} redirects")


def _absolute(url: str, location: str) -> str:
    try:
        onward = urljoin(url, location)
    except ValueError:
        onward = location
    if wrong := check_form(onward, LONGEST_URL):
        raise DownloadError("redirect", f"the link leads on to no usable address: {wrong}")
    return onward


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port


def _as_download_error(wrong: Exception, trip: _Trip, into: Path, *, begun_to_read: bool) -> DownloadError:
    if isinstance(wrong, DownloadError):
        return wrong
    if isinstance(wrong, NetError):
        return DownloadError(_code(wrong, trip, begun_to_read=begun_to_read), str(wrong))
    if isinstance(wrong, OSError) and wrong.errno in _FULL:
        return DownloadError("disk_full", f"there is no room left below {into.parent}")
    raise wrong


def _code(wrong: NetError, trip: _Trip, *, begun_to_read: bool) -> Code:
    match wrong.error_class:
        case "timeout":
            return "timeout" if time.monotonic() >= trip.until else "too_slow"
        case "protocol":
            return "truncated" if begun_to_read else "protocol"
        case "status":
            return "http_status"
        case known:
            return known
