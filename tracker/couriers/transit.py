"""One download's answer on its way to the disk: counted, hashed, sniffed, and held to its limits.

Never opens a connection, and never decides whether to try again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO, Literal

from tracker.couriers import checksums, sniff
from tracker.errors import TrackerError
from tracker.net.guard import Reply

Code = Literal[
    "expired_link", "too_large", "wrong_media", "truncated", "corrupt", "timeout", "too_slow", "disk_full", "quota",
    "address", "dns", "connect", "tls", "protocol", "redirect", "http_status",
]  # fmt: skip

CHUNK = 256 * 1024
RESERVE = 64 * 1024 * 1024  # bytes of disk left to logs and databases
TOLD_EVERY = 0.25  # seconds between two calls of `progress`
_EXPIRED = frozenset({401, 403, 404, 410})  # expired links: R2 says 403, others 401, 404 or 410
_CONTENT_RANGE = re.compile(r"bytes (?:(\d{1,18})-\d{1,18}|\*)/(\d{1,18}|\*)", re.ASCII)

Progress = Callable[[int, int | None], None]
"""Called with the bytes done and the bytes in total (None while unknown)."""

Begun = Callable[["Partial | None"], None]
"""Called before the first byte is written: remember it, and a kill costs nothing. None: this file cannot be gone on from, forget it."""


@dataclass(frozen=True, slots=True)
class Partial:
    """A file that was begun, with what is needed to go on: its strong ETag, and how many bytes it should have."""

    path: Path
    etag: str
    total: int | None = None

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one download."""

    deadline: float = 3600.0
    """Seconds in total."""
    most_bytes: int = 8 * 1024**3
    slowest: float = 10 * 1024
    """Bytes per second, over each `window`."""
    window: float = 10.0
    """Seconds over which the speed is judged: shorter ones punish ordinary stalls."""
    silence: float = 30.0
    """Seconds without a single byte."""
    reserve: int = RESERVE
    """Bytes of disk that are left free."""


STRIDE = 8 * 1024 * 1024
"""Bytes after which they are sent to the disk. Left to the end they would go in one go, and every commit of a database on the same
disk would wait for them."""
_sync_data = getattr(os, "fdatasync", os.fsync)  # not everywhere


@dataclass(frozen=True, slots=True)
class Fetched:
    """A complete file, on disk but not yet durable: the store syncs and renames it."""

    size: int
    sha256: str
    media_type: str
    etag: str | None
    path: Path


class DownloadError(TrackerError):
    """The file is not there. `partial` is what a later try can go on from; None when nothing is worth keeping."""

    def __init__(self, code: Code, detail: str, *, status: int | None = None, partial: Partial | None = None) -> None:
        super().__init__(detail)
        self.code: Code = code
        self.status = status
        self.partial = partial


@dataclass(frozen=True, slots=True)
class Watch:
    """Who wants to know how it goes."""

    progress: Progress | None = None
    begun: Begun | None = None


class StartOverError(TrackerError):
    """The server cannot go on where the partial file ends; only a fetch from the first byte helps."""


class Transit:
    """Takes one answer in. `begun` is the partial file that the answer was asked to continue."""

    def __init__(self, reply: Reply, into: Path, begun: Partial | None, limits: Limits, watch: Watch) -> None:
        self._reply, self._into, self._begun = reply, into, begun
        self._limits, self._watch = limits, watch
        self._digest = hashlib.sha256()
        self._first = b""
        self._done = 0
        self._total: int | None = None
        self._writing = False
        self._promise: checksums.Promise | None = None
        self._etag: str | None = reply.headers.get("etag") or (begun.etag if begun else None)

    def run(self) -> Fetched:
        """Raises DownloadError for what is wrong with the file, NetError for the network, OSError for the disk."""
        start = self._start()
        self._promise = checksums.promised(self._reply.headers, whole=start == 0)
        self._writing = True
        with self._into.open("r+b" if start else "wb") as file:
            if start:
                self._take_over(file)
            self._check_size()
            self._check_room()
            self._announce()
            if self._done != self._total or not start:
                self._write(file)
        return self._finished()

    def _write(self, file: BinaryIO) -> None:
        waiting = 0
        for chunk in self._received():
            file.write(chunk)
            waiting += len(chunk)
            if waiting >= STRIDE:
                file.flush()
                _sync_data(file.fileno())
                waiting = 0

    def through(self, deliver: Callable[[str, Iterator[bytes]], None]) -> Fetched:
        """The same without a file: `deliver` gets the media type and the bytes, whose iterator raises when they are not right."""
        if self._start():
            raise StartOverError("nothing was begun that could be gone on from")
        self._promise = checksums.promised(self._reply.headers, whole=True)
        self._check_size()
        received = self._received()
        first = [next(received, b"")]
        while len(self._first) < sniff.ENOUGH and (more := next(received, b"")):
            first.append(more)
        fetched: list[Fetched] = []

        def checked() -> Iterator[bytes]:
            yield from first
            yield from received
            fetched.append(self._finished())

        deliver(self._sniff(), checked())
        return fetched[0]

    def _finished(self) -> Fetched:
        kind = self._sniff()
        if self._total is not None and self._done != self._total:
            raise DownloadError("truncated", f"{self._done} of {self._total} bytes came")
        if self._promise is not None and not self._promise.kept:
            raise DownloadError(
                "corrupt", f"the {self._promise.name} of what came is not the one that the server promised"
            )
        self._tell()
        return Fetched(self._done, self._digest.hexdigest(), kind, self._etag, self._into)

    @property
    def partial(self) -> Partial | None:
        """What a later try can go on from: only a strong ETag proves that it is still the same file."""
        if not self._writing:
            return self._begun
        return self._identified() if self._done else None

    def _start(self) -> int:
        """The byte at which this answer begins."""
        status = self._reply.status
        if status == HTTPStatus.OK:
            length = self._reply.headers.get("content-length", "")
            self._total = int(length) if length.isascii() and length.isdecimal() else None
            return 0
        if self._begun and status in {HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE}:
            return self._continued(self._begun, whole=status != HTTPStatus.PARTIAL_CONTENT)
        if status in _EXPIRED:
            raise DownloadError("expired_link", f"the link answers {status}: it has expired or is gone", status=status)
        raise DownloadError("http_status", f"the link answers {status}", status=status)

    def _continued(self, begun: Partial, *, whole: bool) -> int:
        """Check that the answer goes on exactly where the partial file ends, and is of the same file."""
        said = _CONTENT_RANGE.fullmatch(self._reply.headers.get("content-range", ""))
        if said is None or self._etag != begun.etag:
            raise StartOverError("the answer does not say which part it is, or is of another file")
        start = begun.size if whole else int(said[1] or -1)
        self._total = None if said[2] == "*" else int(said[2])
        changed = begun.total is not None and self._total is not None and begun.total != self._total
        if start != begun.size or changed or (whole and self._total != start):
            raise StartOverError("the answer does not fit the partial file")
        return start

    def _take_over(self, file: BinaryIO) -> None:
        while chunk := file.read(CHUNK):
            self._hash(chunk)
            self._first = self._first or chunk[: sniff.ENOUGH]
            self._done += len(chunk)

    def _hash(self, chunk: bytes) -> None:
        self._digest.update(chunk)
        if self._promise is not None:
            self._promise.update(chunk)

    def _check_size(self) -> None:
        expected = self._total or 0
        if expected > self._limits.most_bytes:
            raise DownloadError("too_large", f"it has {expected:,} bytes; {self._limits.most_bytes:,} are allowed")

    def _check_room(self) -> None:
        """What is not known to come yet is checked as it comes."""
        left = max((self._total or 0) - self._done, 0)
        free = shutil.disk_usage(self._into.parent).free
        if left > free - self._limits.reserve:
            raise DownloadError(
                "disk_full", f"{left:,} bytes are to come, and {free:,} are free below {self._into.parent}"
            )

    def _received(self) -> Iterator[bytes]:
        pace = _Pace(self._limits)
        while chunk := self._reply.read(CHUNK):
            self._hash(chunk)
            self._done += len(chunk)
            if len(self._first) < sniff.ENOUGH:
                self._first += chunk[: sniff.ENOUGH - len(self._first)]
                if len(self._first) == sniff.ENOUGH:
                    self._sniff()
            if self._done > self._limits.most_bytes:
                raise DownloadError("too_large", f"it has more than {self._limits.most_bytes:,} bytes")
            yield chunk
            if pace.told(len(chunk)):
                if self._writing:
                    self._check_room()
                self._tell()

    def _identified(self) -> Partial | None:
        strong = self._etag and not self._etag.startswith("W/")
        return Partial(self._into, self._etag, self._total) if self._etag and strong else None

    def _announce(self) -> None:
        if self._watch.begun:
            self._watch.begun(self._identified())

    def _sniff(self) -> str:
        if kind := sniff.media_type(self._first):
            return kind
        said = self._reply.headers.get("content-type", "nothing")[:80]
        raise DownloadError("wrong_media", f"the link gives no video, audio or image; it says {said}")

    def _tell(self) -> None:
        if self._watch.progress:
            self._watch.progress(self._done, self._total)


class _Pace:
    """Watches the speed, and how often progress is told."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._since = self._told = time.monotonic()
        self._bytes = 0

    def told(self, more: int) -> bool:
        """Count bytes that arrived; whether progress is due. Raises DownloadError when they arrive too slowly."""
        now = time.monotonic()
        self._bytes += more
        if (elapsed := now - self._since) >= self._limits.window:
            if self._bytes < self._limits.slowest * elapsed:
                raise DownloadError(
                    "too_slow", f"{self._bytes / elapsed:.0f} bytes/s; {self._limits.slowest:.0f} are wanted"
                )
            self._since, self._bytes = now, 0
        due = now - self._told >= TOLD_EVERY
        if due:
            self._told = now
        return due
