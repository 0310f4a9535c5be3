"""A project's rules for its copies, and the housekeeping of the store: what has outlived its rules, and what nobody will go on from.

Never touches a copy that is under way.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable
from datetime import timedelta
from itertools import takewhile
from uuid import UUID

from tracker.core import ids, places
from tracker.couriers import multiparts
from tracker.couriers.store import ArtifactStore, StorageError
from tracker.store import db, keeping
from tracker.store.db import Database
from tracker.store.keeping import Kept, Rules

log = logging.getLogger(__name__)

AT_ONCE = 100
"""Copies between two looks whether to stop: their objects must go too, and each takes two calls to the store."""
UNFINISHED = timedelta(days=1)
"""No upload of ours takes longer."""
SETTLED = timedelta(days=1)
"""An object named by its content is left alone for as long: a copy that is just being stored may refer to it."""


class Keeping:
    """`remove` deletes objects by key; `by_content` says that objects may be shared."""

    def __init__(
        self,
        database: Database,
        store: ArtifactStore,
        remove: Callable[[Iterable[str]], None],
        *,
        by_content: bool = False,
    ) -> None:
        self._database, self._store, self._remove, self._by_content = database, store, remove, by_content
        self._stopping = False

    def stop(self) -> None:
        """Leave the rest of a sweep to the next one: this process ends."""
        self._stopping = True

    def rules(self, project_id: UUID) -> Rules:
        """What the project keeps."""
        with self._database.transaction() as tx:
            return keeping.rules(tx, project_id)

    def put_rules(self, project_id: UUID, wanted: Rules) -> None:
        """Replace what the project keeps; copies that outlive the new rules go with the next sweep."""
        with self._database.transaction() as tx:
            keeping.put_rules(tx, project_id, wanted)

    def sweep(self) -> dict[str, int]:
        """Remove what need not be there; returns how many of each kind."""
        removed = {
            "outlived": self._retire(),
            "partial files": len(self._store.spool.sweep(self._awaited)),
            "unfinished uploads": self._abort(),
            "unshared objects": self._collect() if self._by_content else 0,
        }
        if any(removed.values()):
            log.info("swept: %s", ", ".join(f"{count} {what}" for what, count in removed.items() if count))
        return removed

    def _awaited(self, names: Collection[str]) -> Collection[str]:
        with self._database.transaction() as tx:
            return keeping.awaited(tx, names)

    def _retire(self) -> int:
        retired = 0
        while True:
            with self._database.transaction() as tx:
                found = keeping.outlived(tx, db.now(tx), AT_ONCE)
                gone = [kept for kept in found if keeping.removed(tx, kept, _REMOVED)]
            # After the commit: a row that says stored always has its object.
            self._remove([kept.object_key for kept in gone])
            _say(gone)
            retired += len(gone)
            if len(found) < AT_ONCE or self._stopping:
                return retired

    def _abort(self) -> int:
        bucket = multiparts.bucket_of(self._store.url, os.environ)
        if bucket is None or self._stopping:
            return 0
        with self._database.transaction() as tx:
            now = db.now(tx)
        try:
            return multiparts.abort_unfinished(bucket, UNFINISHED, now)
        except StorageError as wrong:
            log.warning("%s", wrong)
            return 0

    def _collect(self) -> int:
        """Objects named by their content to which no copy refers any more."""
        with self._database.transaction() as tx:
            before = db.now(tx) - SETTLED
        old = [
            found.key
            for found in takewhile(lambda _: not self._stopping, self._store.list())
            if places.is_by_content(found.key) and not found.key.endswith(places.SIDECAR) and found.modified < before
        ]
        gone = 0
        for start in range(0, len(old), AT_ONCE):
            if self._stopping:
                break
            some = old[start : start + AT_ONCE]
            with self._database.transaction() as tx:
                kept = keeping.referred(tx, some)
            for key in some:
                if key not in kept:
                    self._store.delete(key)
                    self._store.delete(key + places.SIDECAR)
                    gone += 1
        return gone


_REMOVED = {"code": "removed", "message": "the project's rules keep it no longer; wish it again to fetch it anew"}


def _say(gone: list[Kept]) -> None:
    for kept in gone:
        a = kept.artifact
        log.info(
            "%s-%s was kept long enough", a.kind, a.index, extra={"generation": ids.public("gen", a.generation_id)}
        )
