"""Where durable copies lie: one interface over a local folder, S3, GCS and Azure, on obstore.

Knows keys and bytes, never generations. Nothing half-written ever appears under a key.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, from_url
from typing_extensions import override

from tracker.couriers.spool import PARTIAL, Spool
from tracker.errors import TrackerError
from tracker.net.failures import WrongProcessError

CHUNK = 1024 * 1024
PART = 8 * 1024 * 1024
"""Bytes of one part of an upload; S3 takes 10,000 of them, more than the largest file that we fetch."""
PARTS_AT_ONCE = 2
"""Parts of one upload under way, each of which is held in memory (obstore's own 12 would be 100 MB)."""
RETRIES: Any = {"max_retries": 5, "retry_timeout": timedelta(minutes=2)}
"""Of one request to the store; what fails then is tried again as a whole, without fetching anything twice."""
PARTIALS = ".partial"
"""The folder of partial files in a local store: on the same disk, so that the last step is a rename."""


Check = Callable[[], None]
"""Raises when the work must end here."""


def _go_on() -> None: ...


class StorageError(TrackerError):
    """The store refused or could not be reached."""

    code = "storage"


@dataclass(frozen=True, slots=True)
class Stored:
    """What the store says of one object. Size in bytes; the ETag is the store's, quotes included."""

    key: str
    size: int
    etag: str | None
    modified: datetime


class ArtifactStore:
    """Objects by key (`a/b/c.mp4`). Opened at first use, which must come after the fork.

    obstore's threads do not survive a fork: a child of a process that used any store would wait for them for ever.
    """

    _runtime_of: ClassVar[int | None] = None
    """The process in which obstore's threads run."""

    remote = True
    """Whether objects lie elsewhere than on this machine's disk."""

    def __init__(self, url: str, spool: Path) -> None:
        self.url = url
        self.spool = Spool(spool)
        self._opened: Any = None

    def put_file(self, key: str, path: Path, *, media_type: str, check: Check = _go_on) -> None:
        """Move a complete file to `key`, durably and at once, replacing what was there. Raises StorageError.

        Where that takes long `check` is called again and again; what it raises comes through, and then nothing is stored.
        """
        if not path.is_file():
            raise StorageError(f"{key} could not be stored: there is no {path.name}")
        if path.stat().st_size > PART:
            self.put_stream(key, _pieces(path, check), media_type=media_type)
        else:
            self._put(key, path, media_type)
        path.unlink()

    def put_stream(self, key: str, chunks: Iterator[bytes], *, media_type: str) -> None:
        """Store what the iterator gives; when it raises nothing is stored, and its error comes through."""
        raised: list[Exception] = []

        def watched() -> Iterator[bytes]:
            try:
                yield from chunks
            except Exception as wrong:
                raised.append(wrong)
                raise

        try:
            self._put(key, watched(), media_type)
        except Exception:
            if raised:
                raise raised[0] from None
            raise

    def put_note(self, key: str, content: bytes) -> None:
        """Store a small JSON text. Raises StorageError."""
        self._put(key, content, "application/json")

    def _put(self, key: str, content: Any, media_type: str) -> None:
        try:
            obstore.put(
                self._store, str(_checked(key)), content, attributes={"Content-Type": media_type}, chunk_size=PART,
                max_concurrency=PARTS_AT_ONCE,
            )  # fmt: skip
        except (BaseError, OSError) as wrong:
            raise StorageError(f"{key} could not be stored: {_short(wrong)}") from None

    def head(self, key: str) -> Stored | None:
        """What is stored under the key; None when nothing is."""
        try:
            return _stored(obstore.head(self._store, str(_checked(key))))
        except FileNotFoundError:
            return None
        except BaseError as wrong:
            raise StorageError(f"{key} could not be looked up: {_short(wrong)}") from None

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `stop`, in chunks. Raises StorageError; FileNotFoundError."""
        span: Any = {"offset": start} if stop is None else (start, stop)
        try:
            found = obstore.get(self._store, str(_checked(key)), options={"range": span} if start or stop else None)
            for chunk in found.stream(min_chunk_size=CHUNK):
                yield bytes(chunk)
        except BaseError as wrong:
            raise StorageError(f"{key} could not be read: {_short(wrong)}") from None

    def delete(self, key: str) -> None:
        """Remove the object; it need not exist."""
        try:
            obstore.delete(self._store, str(_checked(key)))
        except FileNotFoundError:
            return
        except BaseError as wrong:
            raise StorageError(f"{key} could not be deleted: {_short(wrong)}") from None

    def list(self, prefix: str = "") -> Iterator[Stored]:
        """Everything under the prefix (whole path segments), partial files left out."""
        for page in obstore.list(self._store, prefix or None):
            yield from (_stored(meta) for meta in page if not meta["path"].endswith(PARTIAL))

    def signed_url(self, key: str, seconds: float) -> str | None:
        """A link that needs no key and expires; None where the store has no such thing (a local folder)."""
        return str(obstore.sign(self._store, "GET", str(_checked(key)), timedelta(seconds=seconds)))

    @property
    def _store(self) -> Any:
        here = os.getpid()
        owner = ArtifactStore._runtime_of = ArtifactStore._runtime_of or here
        if owner != here:
            raise WrongProcessError("artifact store", owner, here)
        if self._opened is None:
            self._opened = self._open()
        return self._opened

    def _open(self) -> Any:
        return from_url(self.url, retry_config=RETRIES)


class FolderStore(ArtifactStore):
    """A local folder. Partial files lie in a folder of their own in it, on the same disk."""

    remote = False

    def __init__(self, folder: Path) -> None:
        super().__init__(f"file://{folder}", folder / PARTIALS)
        self._folder = folder

    @override
    def put_file(self, key: str, path: Path, *, media_type: str, check: Check = _go_on) -> None:
        place = self._folder / _checked(key)
        try:
            _make_folder(place.parent)
            _sync(path)
            path.replace(place)
            _sync(place.parent)
        except OSError as wrong:
            raise StorageError(f"{key} could not be stored: {wrong.strerror or wrong}") from wrong

    @override
    def put_note(self, key: str, content: bytes) -> None:
        place = self._folder / _checked(key)
        aside = place.with_name(f".{place.name}.{os.getpid()}{PARTIAL}")
        try:
            _make_folder(place.parent)
            aside.write_bytes(content)
            _sync(aside)
            aside.replace(place)
        except OSError as wrong:
            with contextlib.suppress(OSError):
                aside.unlink()
            raise StorageError(f"{key} could not be stored: {wrong.strerror or wrong}") from wrong

    @override
    def signed_url(self, key: str, seconds: float) -> str | None:
        return None

    @override
    def _open(self) -> Any:
        return LocalStore(self._folder, mkdir=True)


def store_at(url: str, spool: Path) -> ArtifactStore:
    """The store of a TRACKER_ARTIFACTS_URL without its query. `spool` is the folder for partial files of object stores."""
    if url.startswith("file://"):
        return FolderStore(Path(url.removeprefix("file://")))
    return ArtifactStore(url, spool)


def _pieces(path: Path, check: Check) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            check()
            yield piece


def _short(wrong: Exception) -> str:
    # obstore explains itself over many lines, the request's address with its query among them.
    return str(wrong).partition("\n")[0].partition("?")[0][:300]


def _checked(key: str) -> PurePosixPath:
    parts = key.split("/")
    if any(part in {"", ".", ".."} or "\0" in part or "\\" in part for part in parts) or key.endswith(PARTIAL):
        raise ValueError(f"{key[:80]!r} is not a key: write it as folders and a name, joined by single slashes")
    return PurePosixPath(key)


def _stored(meta: Any) -> Stored:
    return Stored(meta["path"], meta["size"], meta["e_tag"], meta["last_modified"])


def _make_folder(folder: Path) -> None:
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync(folder.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
