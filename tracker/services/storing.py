"""The last step of a copy: a complete file goes to its final key with a note beside it, and the row, the events and the webhooks follow.

Fetches nothing, and leaves no row that says `stored` without the object.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from tracker import bell
from tracker.core import ids, places
from tracker.core.events import EventType
from tracker.core.generation import Artifact, Generation
from tracker.core.times import rfc3339
from tracker.couriers.download import Fetched
from tracker.couriers.store import ArtifactStore, StorageError
from tracker.services import steps
from tracker.store import artifacts, db, generations, outbox
from tracker.store.artifacts import Wanted
from tracker.store.db import Database, Transaction

log = logging.getLogger(__name__)


class Copies:
    """`by_content` names objects by their hash, so that a project stores the same bytes once."""

    def __init__(
        self, database: Database, bell_: bell.Bell, store: ArtifactStore, *, base_url: str, by_content: bool = False
    ) -> None:
        self._database, self._bell, self._store = database, bell_, store
        self._base_url, self._by_content = base_url, by_content

    def keep(
        self, wanted: Wanted, fetched: Fetched, url: str, seconds: float, check: Callable[[], None] = lambda: None
    ) -> None:
        """Move the file to its key and record it. Raises StorageError, and what `check` raises on the way: then the file stays."""
        key = self._key(wanted, fetched.media_type, fetched.sha256 if self._by_content else None)
        # The note first: once the file has moved there is nothing left to try again with.
        self._note(wanted, key, fetched, url)
        self._store.put_file(key, fetched.path, media_type=fetched.media_type, check=check)
        self._record(wanted, fetched, key, seconds)

    def pass_on(self, wanted: Wanted, media_type: str, chunks: Iterator[bytes]) -> None:
        """Store bytes as they come; when the iterator raises nothing is stored. Never by content: the hash is not known yet."""
        self._store.put_stream(self._key(wanted, media_type, None), chunks, media_type=media_type)

    def passed_on(self, wanted: Wanted, fetched: Fetched, url: str, seconds: float) -> None:
        """Record what `pass_on` has stored."""
        key = self._key(wanted, fetched.media_type, None)
        self._note(wanted, key, fetched, url)
        self._record(wanted, fetched, key, seconds)

    def give_up(self, wanted: Wanted, error: dict[str, Any]) -> None:
        """It will not be tried again."""
        with self._database.transaction() as tx:
            now, g = db.now(tx), self._locked(tx, wanted)
            made = 0
            if g is not None and artifacts.failed(tx, wanted, error=error):
                made = self._tell(tx, g, wanted, EventType.ARTIFACT_FAILED, now)
        self._after(wanted, made)

    @staticmethod
    def _key(wanted: Wanted, media_type: str, sha256: str | None) -> str:
        if sha256 is not None:
            return places.by_content(wanted.project, sha256, media_type)
        return places.by_generation(
            wanted.project, wanted.provider, wanted.registered_at, ids.public("gen", wanted.generation_id), wanted.kind,
            wanted.index, media_type,
        )  # fmt: skip

    def _note(self, wanted: Wanted, key: str, fetched: Fetched, url: str) -> None:
        with self._database.transaction() as tx:
            now = db.now(tx)
        note = {
            "generation": ids.public("gen", wanted.generation_id),
            "provider": wanted.provider,
            "task_id": wanted.task_id,
            "kind": wanted.kind,
            "index": wanted.index,
            "size": fetched.size,
            "sha256": fetched.sha256,
            "media_type": fetched.media_type,
            # Never the path and the query: they are as good as a key while they last.
            "source_host": urlsplit(url).hostname,
            "source_etag": fetched.etag,
            "registered_at": rfc3339(wanted.registered_at),
            "fetched_at": rfc3339(now),
        }
        self._store.put_note(key + places.SIDECAR, orjson.dumps(note, option=orjson.OPT_INDENT_2))

    def _record(self, wanted: Wanted, fetched: Fetched, key: str, seconds: float) -> None:
        made = 0
        with self._database.transaction() as tx:
            now, g = db.now(tx), self._locked(tx, wanted)
            if g is not None and artifacts.stored(
                tx, wanted, object_key=key, size=fetched.size, sha256=fetched.sha256, media_type=fetched.media_type,
                etag=fetched.etag, now=now, seconds=seconds,
            ):  # fmt: skip
                made = self._tell(tx, g, wanted, EventType.ARTIFACT_STORED, now)
        if g is None:
            remover(self._store)([key])  # the generation was deleted meanwhile
        self._after(wanted, made)

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


def remover(store: ArtifactStore) -> Callable[[Iterable[str]], None]:
    """Deletes stored copies and their notes by key. What others may share is left to the sweep, which looks whether they do."""

    def remove(keys: Iterable[str]) -> None:
        for key in keys:
            if places.is_by_content(key):
                continue
            try:
                store.delete(key)
                store.delete(key + places.SIDECAR)
            except StorageError as wrong:
                log.warning("%s", wrong)

    return remove
