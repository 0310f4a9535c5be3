"""The tracker as seen from a user's program: one class, and the check of a webhook. It needs only the core, the errors and requests.

Generations are plain dictionaries, exactly as the REST API answers them. Every call here may be repeated without harm (a
registration is recognised by its task id), so lost connections, 429 and 503 are tried again until `patience` seconds have passed.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from mimetypes import guess_extension
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import requests

from tracker import errors
from tracker.core import signing
from tracker.core.lifecycle import FINAL
from tracker.core.signing import SignatureError
from tracker.errors import FieldProblem, TrackerError

__all__ = ["ApiError", "DownloadError", "SignatureError", "Tracker", "UnreachableError", "WaitTimeoutError", "verify_webhook"]  # fmt: skip

CONNECT_SECONDS, READ_SECONDS = 5.0, 30.0
LONGEST_WAIT = 60
"""Seconds: the server holds no `Prefer: wait` longer."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 5.0
BATCH_COUNT, BATCH_BYTES = 1_000, 7_000_000
"""The server takes 1,000 registrations and 8 MB at once; the rest is room for what surrounds them."""
AGAIN = frozenset({429, 502, 503, 504})  # the server, or a proxy before it, asks for another try
LOST = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
CHUNK = 256 * 1024


class ApiError(TrackerError):
    """An answer that no other error stands for. `code` and `request_id` are the server's."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        super().__init__(f"{problem.get('detail') or problem.get('title') or 'no reason given'} (HTTP {status})")
        self.status, self.code, self.request_id = status, str(problem.get("code", "error")), problem.get("request_id")


class UnreachableError(TrackerError):
    """The tracker did not answer in time, however often it was asked."""


class WaitTimeoutError(TrackerError, TimeoutError):
    """The generation was not final in time. `generation` is how it was last seen, None when it never was."""

    code = "wait_timeout"

    def __init__(self, generation_id: str, timeout: float, generation: dict[str, Any] | None) -> None:
        super().__init__(f"{generation_id} is {generation['state'] if generation else 'unknown'} after {timeout:g} s")
        self.generation = generation


class DownloadError(TrackerError):
    """There is no stored copy, or what arrived is not what was stored."""


class Tracker:
    """One connection to a tracker. `url` is where its API is (such as http://127.0.0.1:8000), `key` a `trk_` API key.

    `patience`: seconds for which a call that cannot get through is tried again. Not for use by several threads at once.
    """

    def __init__(self, url: str, key: str, *, patience: float = 30.0) -> None:
        self._base, self._patience = url.rstrip("/"), patience
        self._session = requests.Session()
        self._session.headers.update({"Authorization": f"Bearer {key}", "Accept": "application/json"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._session.close()

    def register(self, provider: str, task_id: str, **fields: Any) -> dict[str, Any]:
        """Track a task; the same one again gives what is stored. `fields` as in the API: webhook_url, download, metadata, tags, ...

        Spans may be timedeltas or seconds. ConflictError (with `.id`) when it is registered with other values.
        """
        return self._json("POST", "/v1/generations", body={"provider": provider, "task_id": task_id, **fields})

    def register_many(self, registrations: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Track any number of tasks; one result each, in order: `{"status", "generation" or "problem"}`. One bad one stops no other."""
        results: list[dict[str, Any]] = []
        for batch in _batches(registrations):
            body = b'{"generations":[' + b",".join(batch) + b"]}"
            results += self._json("POST", "/v1/generations/batch", body=body)["results"]
        return results

    def get(self, generation_id: str) -> dict[str, Any]:
        """A generation as it is now."""
        return self._json("GET", _path(generation_id))

    def wait(self, generation_id: str, timeout: float = 7200.0) -> dict[str, Any]:
        """The generation once it is completed, failed or cancelled. WaitTimeoutError after `timeout` seconds.

        Nothing is polled: the server answers when something changes. Restarts and lost connections are sat out.
        """
        deadline, seen, version = time.monotonic() + timeout, None, None
        while (left := deadline - time.monotonic()) > 0:
            asked = time.monotonic()
            hold = min(LONGEST_WAIT, max(1, int(left)))
            headers = {"Prefer": f"wait={hold}"} | ({"If-None-Match": version} if version else {})
            try:
                answer = self._call(
                    "GET",
                    _path(generation_id),
                    headers=headers,
                    patience=left,
                    read=hold + READ_SECONDS,
                )
            except UnreachableError:
                break
            if answer.status_code != requests.codes.not_modified:
                seen, version = answer.json(), answer.headers.get("ETag")
                if seen["state"] in FINAL:
                    return dict(seen)
            if time.monotonic() - asked < FIRST_PAUSE:  # somebody between us and the server does not let it wait
                time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
        raise WaitTimeoutError(generation_id, timeout, seen)

    def generations(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """All generations, newest first, page by page. Filters as in the API: state (one or several), provider, tag, ..."""
        query = {name: _plain(value) for name, value in filters.items() if value is not None}
        cursor: str | None = None
        while True:
            page = self._json("GET", "/v1/generations", query=query | ({"cursor": cursor} if cursor else {}))
            yield from page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def cancel(self, generation_id: str) -> dict[str, Any]:
        """Stop tracking (the provider goes on). ConflictError when it is completed or failed already."""
        return self._json("POST", _path(generation_id, "/cancel"))

    def download(
        self, generation_id: str, kind: str = "video", index: int = 0, *, to: str | Path = ".", timeout: float = 600
    ) -> Path:
        """Fetch a stored copy to a file, or into a folder; returns where it is. A copy that is being stored is waited for.

        What came before a lost connection is kept as `.part` and continued, even by a later call; the file appears only when its SHA-256
        is right. DownloadError when there is no copy after `timeout` seconds.
        """
        artifact = self._artifact(generation_id, kind, index, timeout)
        target = Path(to)
        if target.is_dir():
            target /= f"{generation_id}-{kind}-{index}{guess_extension(artifact['media_type'] or '') or ''}"
        part = target.with_name(target.name + ".part")
        self._complete(_path(generation_id, f"/artifacts/{kind}/{index}"), part, artifact["size"])
        if _sha256(part) != artifact["sha256"]:
            part.unlink()
            raise DownloadError(f"what arrived of {generation_id} {kind}/{index} is not what was stored; try again")
        part.replace(target)
        return target

    def _artifact(self, generation_id: str, kind: str, index: int, timeout: float) -> dict[str, Any]:
        until = time.monotonic() + timeout
        while True:
            found = self._json("GET", _path(generation_id, "/artifacts"))["data"]
            artifact = next((a for a in found if (a["kind"], a["index"]) == (kind, index)), None)
            if artifact is None:
                raise DownloadError(f"{generation_id} has no copy of {kind}/{index}; register it with download=True")
            if artifact["state"] == "stored":
                return dict(artifact)
            if artifact["state"] == "failed" or time.monotonic() > until:
                raise DownloadError(f"{generation_id} {kind}/{index} is {artifact['state']} {artifact['error'] or ''}")
            time.sleep(1.0)

    def _complete(self, path: str, part: Path, size: int) -> None:
        until = time.monotonic() + self._patience
        while (had := _size(part)) < size or not part.exists():
            with suppress(*LOST):
                self._fetch(path, part)
            if _size(part) > had:  # it moves: patience begins anew
                until = time.monotonic() + self._patience
            elif time.monotonic() > until:
                raise UnreachableError(f"{self._base} broke off at {had:,} of {size:,} bytes")
            elif size:
                time.sleep(FIRST_PAUSE)

    def _fetch(self, path: str, part: Path) -> None:
        had = _size(part)
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"} | ({"Range": f"bytes={had}-"} if had else {})
        with self._call("GET", path, headers=headers, stream=True) as answer:
            continues = answer.status_code == requests.codes.partial_content
            with part.open("ab" if continues else "wb") as file:
                for chunk in answer.iter_content(CHUNK):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())

    def _json(self, method: str, path: str, **sent: Any) -> dict[str, Any]:
        return dict(self._call(method, path, **sent).json())

    def _call(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, Any] | None = None, headers: Mapping[str, str] | None = None,
        patience: float | None = None, read: float = READ_SECONDS, stream: bool = False,
    ) -> requests.Response:  # fmt: skip
        """One request, repeated while it cannot get through; raises what its answer means."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body, default=_plain).encode()
        given = {**(headers or {}), **({"Content-Type": "application/json"} if content is not None else {})}
        until, pause = time.monotonic() + (self._patience if patience is None else patience), FIRST_PAUSE
        while True:
            try:
                answer = self._session.request(
                    method, self._base + path, data=content, params=query, headers=given, stream=stream, timeout=(CONNECT_SECONDS, read)
                )  # fmt: skip
            except LOST as lost:
                trouble: str = type(lost).__name__
            else:
                if answer.status_code not in AGAIN:
                    if answer.ok:
                        return answer
                    raise _error(answer)
                trouble, pause = f"HTTP {answer.status_code}", max(pause, _retry_after(answer))
            if time.monotonic() + pause > until:
                raise UnreachableError(f"{self._base} cannot be reached ({trouble})")
            time.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def verify_webhook(secret: str, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """The event in `body`, when it was signed with this `whsec_` secret in the last 5 minutes; SignatureError otherwise.

    `body` must be the bytes as they arrived; header names may be in any case.
    """
    return signing.verify(secret, headers, body, now=time.time())


def _error(answer: requests.Response) -> TrackerError:
    found: Any = None
    with suppress(ValueError):
        found = answer.json()
    problem = found if isinstance(found, dict) else {}
    detail = str(problem.get("detail") or problem.get("title") or answer.reason)
    fields = [FieldProblem(e["field"], e["message"], e["code"]) for e in problem.get("errors", [])]
    match answer.status_code:
        case 401:
            return errors.UnauthorizedError(detail)
        case 404:
            return errors.NotFoundError("object", answer.request.path_url)
        case 409:
            return errors.ConflictError(
                detail, *fields, id=problem.get("id"), code=problem.get("code"), count=problem.get("count")
            )
        case 413:
            return errors.PayloadTooLargeError(detail)
        case 422:
            return errors.InvalidError(*(fields or [FieldProblem("body", detail)]))
        case _:
            return ApiError(answer.status_code, problem)


def _path(generation_id: str, below: str = "") -> str:
    return f"/v1/generations/{quote(generation_id, safe='')}{below}"


def _retry_after(answer: requests.Response) -> float:
    told = answer.headers.get("Retry-After", "")
    return float(told) if told.isdigit() else 0.0


def _batches(registrations: Iterable[Mapping[str, Any]]) -> Iterator[list[bytes]]:
    batch: list[bytes] = []
    size = 0
    for registration in registrations:
        item = json.dumps(dict(registration), default=_plain).encode()
        if batch and (len(batch) == BATCH_COUNT or size + len(item) > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += len(item) + 1
    if batch:
        yield batch


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return value.isoformat() if isinstance(value, datetime) else value


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
