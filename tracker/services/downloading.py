"""Keeping durable copies: claim an artifact, fetch it, store it whole under its final name, record. Provider links die within hours."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any

from tracker import bell
from tracker.core import backoff, ids
from tracker.core.events import EventType
from tracker.core.generation import Artifact, Generation
from tracker.core.observation import Seen
from tracker.core.urls import host_of
from tracker.couriers.download import DownloadError, Fetched, Limits, Partial, download
from tracker.couriers.store import ArtifactStore, StorageError
from tracker.net.fetch import Ask, Fetcher
from tracker.net.guard import GuardedSession
from tracker.providers import REGISTRY
from tracker.providers.base import Account, Response, Subject
from tracker.services import steps
from tracker.store import artifacts, credentials, db, generations, outbox, switches
from tracker.store.artifacts import Wanted
from tracker.store.db import Database, Transaction
from tracker.store.vault import Vault

log = logging.getLogger(__name__)

ATTEMPTS = 12
"""Tries in a row without progress: with waits doubling from 5 s to an hour they span about half a day."""
LONGEST_WAIT = 3600.0
FOR_EVER = frozenset({"too_large", "wrong_media"})
"""What another try would only find again."""
RENEW_EVERY = 2.0
"""Seconds between two signs of life in the database: the lease is 45 s, and people watch the progress."""
EXTENSIONS = {
    "video/mp4": "mp4", "video/quicktime": "mov", "video/webm": "webm", "audio/mpeg": "mp3", "audio/wav": "wav",
    "image/jpeg": "jpg", "image/png": "png", "image/webp": "webp",
}  # fmt: skip


class ClaimLostError(Exception):
    """Another worker has this artifact now."""


class Downloading:
    """`session`, `fetcher` and `store` belong to this process."""

    def __init__(
        self, database: Database, vault: Vault, bell_: bell.Bell, *, session: Callable[[], GuardedSession],
        fetcher: Callable[[], Fetcher], store: ArtifactStore, base_url: str, limits: Limits | None = None,
    ) -> None:  # fmt: skip
        self._database, self._vault, self._bell = database, vault, bell_
        self._session, self._fetcher, self._store, self._base_url = session, fetcher, store, base_url
        self._limits = limits or Limits()

    def fetch_one(self) -> bool:
        """Fetch one artifact that is due; False when none was. Rings for a successor while there is more."""
        self._bell.answered(bell.FETCH)
        with self._database.transaction() as tx:
            now = db.now(tx)
            claimed = [] if "downloads" in switches.stopped(tx) else artifacts.claim(tx, now=now, limit=1)
            more = bool(claimed) and artifacts.any_due(tx, now)
        if not claimed:
            return False
        if more:
            self._bell.ring(bell.FETCH, bell.DOWNLOAD, because="more is due")
        try:
            self._fetch(claimed[0])
        except ClaimLostError:
            log.info(
                "an artifact is fetched by another worker now",
                extra={"generation": ids.public("gen", claimed[0].generation_id)},
            )
        with self._database.transaction() as tx:
            if artifacts.any_due(tx, db.now(tx)):
                self._bell.ring(bell.FETCH, bell.DOWNLOAD, because="more is due")
        return True

    def _fetch(self, wanted: Wanted) -> None:
        began = monotonic()
        stem = (
            f"{wanted.project}/{wanted.provider}/{wanted.registered_at:%Y/%m}/{ids.public('gen', wanted.generation_id)}"
            f"/{wanted.kind}-{wanted.index}"
        )
        try:
            into = self._store.partial(stem, f"f{wanted.fence}")
        except OSError as wrong:
            self._failed(wanted, "storage", f"no place for the file: {wrong.strerror or wrong}")
            return
        try:
            fetched = self._download(wanted, into)
            key = f"{stem}.{EXTENSIONS.get(fetched.media_type, 'bin')}"
            self._store.put_file(key, fetched.path, media_type=fetched.media_type)
        except DownloadError as wrong:
            into.unlink(missing_ok=True)
            self._failed(wanted, wrong.code, str(wrong))
        except (StorageError, OSError) as wrong:
            into.unlink(missing_ok=True)
            self._failed(wanted, "storage", str(wrong))
        except BaseException:
            into.unlink(missing_ok=True)
            raise
        else:
            self._stored(wanted, fetched, key, monotonic() - began)

    def _download(self, wanted: Wanted, into: Any) -> Fetched:
        last = [monotonic() - RENEW_EVERY, 0.0]

        def progress(done: int, _total: int | None) -> None:
            at = monotonic()
            if at - last[0] < RENEW_EVERY:
                return
            speed = (done - last[1]) / max(at - last[0], 1e-3)
            last[:] = [at, done]
            with self._database.transaction() as tx:
                if not artifacts.renew(tx, wanted, now=db.now(tx), bytes_done=done, bytes_per_second=speed):
                    raise ClaimLostError

        resume: Partial | None = None
        return download(self._session(), wanted.source_url, into, resume=resume, limits=self._limits, progress=progress)

    def _stored(self, wanted: Wanted, fetched: Fetched, key: str, seconds: float) -> None:
        with self._database.transaction() as tx:
            g, now = self._locked(tx, wanted), db.now(tx)
            if g is None or not artifacts.stored(
                tx, wanted, object_key=key, size=fetched.size, sha256=fetched.sha256, media_type=fetched.media_type,
                etag=fetched.etag, now=now, seconds=seconds,
            ):  # fmt: skip
                made = -1
            else:
                made = self._tell(tx, g, wanted, EventType.ARTIFACT_STORED, now)
        if made < 0 and g is None:
            self._store.delete(key)  # the generation was deleted meanwhile
        self._after(wanted, made)

    def _failed(self, wanted: Wanted, code: str, message: str) -> None:
        error = {"code": code, "message": message[:500].replace("\0", "")}
        url, refreshed = self._fresh_link(wanted) if code == "expired_link" else (wanted.source_url, wanted.refreshed)
        over = code in FOR_EVER or wanted.attempts + 1 >= ATTEMPTS
        made = 0
        with self._database.transaction() as tx:
            g, now = self._locked(tx, wanted), db.now(tx)
            if g is None:
                return
            if not over:
                wait = 0.0 if url != wanted.source_url else self._wait(wanted.attempts + 1)
                due_at = now + timedelta(seconds=wait)
                artifacts.retry(tx, wanted, due_at=due_at, error=error, source_url=url, refreshed=refreshed)
            elif artifacts.failed(tx, wanted, error=error):
                made = self._tell(tx, g, wanted, EventType.ARTIFACT_FAILED, now)
        log.warning(
            "%s-%s: %s: %s",
            wanted.kind,
            wanted.index,
            code,
            message,
            extra={"generation": ids.public("gen", wanted.generation_id)},
        )
        self._after(wanted, made)

    @staticmethod
    def _wait(failures: int) -> float:
        return backoff.after_failures(failures, LONGEST_WAIT, random.random(), first=5.0)  # noqa: S311 - spreads retries

    def _after(self, wanted: Wanted, made: int) -> None:
        if made > 0:
            self._bell.ring(bell.SEND, bell.WEBHOOK, because=f"{made} deliveries")
        self._bell.changed([str(wanted.generation_id)])

    @staticmethod
    def _locked(tx: Transaction, wanted: Wanted) -> Generation | None:
        # The generation before its artifacts: the same order as everywhere.
        locked = generations.lock(tx, [wanted.generation_id])
        return locked[0] if locked else None

    def _tell(self, tx: Transaction, g: Generation, wanted: Wanted, type_: EventType, now: datetime) -> int:
        """The event of this copy, and `artifacts.done` once the last wanted one is stored or failed."""
        copies = artifacts.of_generations(tx, [g.id]).get(g.id, ())
        this = next(a for a in copies if (a.kind, a.index) == (wanted.kind, wanted.index))
        taken = [self._step(type_, replace(g, artifacts=copies), this, now)]
        if all(a.state != "pending" for a in copies):
            taken.append(self._step(EventType.ARTIFACTS_DONE, taken[0].generation, None, now))
        generations.rewrite(tx, [taken[-1].generation], now)
        return outbox.publish(tx, [(step.event, step.generation) for step in taken if step.event], now)

    def _step(self, type_: EventType, g: Generation, artifact: Artifact | None, now: datetime) -> steps.Step:
        return steps.of_artifact(type_, g, artifact, now, self._base_url)

    def _fresh_link(self, wanted: Wanted) -> tuple[str, int]:
        """The provider's present link for this output; the old one when it gives no other. Once per try."""
        with self._database.transaction() as tx:
            credential = credentials.by_id(tx, [wanted.credential_id]).get(wanted.credential_id)
            at = db.now(tx)
        if credential is None:
            return wanted.source_url, wanted.refreshed
        provider = REGISTRY[wanted.provider]
        key = None if credential.api_key is None else self._vault.decrypt(credential.api_key)
        account = Account(credential.base_url or provider.default_base_url, key)
        subject = Subject(wanted.task_id, wanted.task_kind)
        question = provider.question(account, subject)
        ask = Ask(
            key=None, method=question.method, url=question.url, headers=question.headers, body=question.body,
            host_allowed=host_of(account.base_url),
        )  # fmt: skip
        for (answer,) in self._fetcher().fetch([ask]):
            seen = provider.read(
                subject, Response(answer.status, answer.headers, answer.body, at, answer.failure, answer.detail)
            )
            for output in seen.outputs if isinstance(seen, Seen) else ():
                if (output.kind, output.index) == (wanted.kind, wanted.index):
                    return output.url, wanted.refreshed + 1
        return wanted.source_url, wanted.refreshed + 1


def remover(store: ArtifactStore) -> Callable[[Any], None]:
    """Deletes stored copies by key; what cannot be deleted now is left to the sweep."""

    def remove(keys: Any) -> None:
        for key in keys:
            try:
                store.delete(key)
            except StorageError as wrong:
                log.warning("%s", wrong)

    return remove
