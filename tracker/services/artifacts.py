"""Serving stored copies: find, read a range, and signed links that need no key and expire."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

from tracker.core import ids
from tracker.core.generation import Artifact
from tracker.couriers.store import ArtifactStore, StorageError
from tracker.errors import ConflictError, NotFoundError, UnauthorizedError
from tracker.store import artifacts, db, generations, keeping
from tracker.store.db import Database

LINK_LIFE = timedelta(hours=1)
LONGEST_LINK = timedelta(days=7)
"""What object stores allow at most."""
REDIRECT_SECONDS = 300.0


VERIFIED_AT_ONCE = 100
"""Copies that are looked up together."""


@dataclass(frozen=True, slots=True)
class Verified:
    """One stored copy, and what is wrong with it: None when it still is what was stored."""

    artifact: Artifact
    wrong: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """A stored copy that can be read. `redirect_url` is a signed link to the object store, None for a local folder."""

    artifact: Artifact
    object_key: str
    filename: str
    redirect_url: str | None


class Artifacts:
    """`secret` signs links; it is any string that only this installation knows."""

    def __init__(self, database: Database, store: ArtifactStore, *, secret: str, base_url: str) -> None:
        self._database, self._store, self._base_url = database, store, base_url
        self._secret = hashlib.sha256(b"generation-tracker links" + secret.encode()).digest()

    def list(self, project_id: UUID, generation_id: UUID) -> tuple[Artifact, ...]:
        """Every copy that was wished, whatever became of it."""
        with self._database.transaction() as tx:
            if generations.get(tx, project_id, generation_id) is None:
                raise NotFoundError("generation", ids.public("gen", generation_id))
            return artifacts.of_generations(tx, [generation_id]).get(generation_id, ())

    def find(self, project_id: UUID, generation_id: UUID, kind: str, index: int) -> Found:
        """A stored copy. ConflictError while it is not stored; NotFoundError when it was never wished."""
        with self._database.transaction() as tx:
            row = artifacts.get(tx, generation_id, kind, index)
        if row is None or row.project_id != project_id:
            raise NotFoundError("artifact", f"{kind}/{index}")
        return self._found(row)

    def _found(self, row: Any) -> Found:
        artifact = Artifact(**{name: getattr(row, name) for name in Artifact.__dataclass_fields__})
        if artifact.state != "stored":
            raise ConflictError(f"this copy is {artifact.state}, not stored", code=f"artifact_{artifact.state}")
        extension = row.object_key.rpartition(".")[2]
        name = f"{ids.public('gen', row.generation_id)}-{row.kind}-{row.index}.{extension}"
        return Found(artifact, row.object_key, name, self._store.signed_url(row.object_key, REDIRECT_SECONDS))

    def read(self, found: Found, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from `start` up to, not including, `stop`."""
        return self._store.read(found.object_key, start, stop)

    def count(self, project_id: UUID, since: datetime | None = None) -> int:
        """How many copies `verify` will read."""
        with self._database.transaction() as tx:
            return keeping.count(tx, project_id, since)

    def verify(self, project_id: UUID, since: datetime | None = None) -> Iterator[Verified]:
        """Read every stored copy (of generations registered since) again and compare its size and SHA-256."""
        after = None
        while True:
            with self._database.transaction() as tx:
                some = keeping.page(tx, project_id, after, VERIFIED_AT_ONCE, since)
            for kept in some:
                yield Verified(kept.artifact, self._wrong(kept.artifact, kept.object_key))
            if len(some) < VERIFIED_AT_ONCE:
                return
            last = some[-1].artifact
            after = (last.generation_id, last.kind, last.index)

    def _wrong(self, artifact: Artifact, key: str) -> str | None:
        digest, size = hashlib.sha256(), 0
        try:
            for chunk in self._store.read(key):
                digest.update(chunk)
                size += len(chunk)
        except FileNotFoundError:
            return "it cannot be read: it is gone from the store"
        except StorageError as unreadable:
            return f"it cannot be read: {unreadable}"
        if size != artifact.size:
            return f"its size differs: {size:,} bytes, and {artifact.size:,} were stored"
        return None if digest.hexdigest() == artifact.sha256 else "its SHA-256 differs from what was stored"

    def link(
        self, project_id: UUID, generation_id: UUID, kind: str, index: int, expires_in: timedelta = LINK_LIFE
    ) -> tuple[str, datetime]:
        """A link for a player or a receiver: it needs no key, and expires at the time that is returned with it."""
        found = self.find(project_id, generation_id, kind, index)
        life = min(expires_in, LONGEST_LINK)
        with self._database.transaction() as tx:
            until = (db.now(tx) + life).replace(microsecond=0)
        if found.redirect_url is not None:
            return self._store.signed_url(found.object_key, life.total_seconds()) or found.redirect_url, until
        expires = int(until.timestamp())
        place = f"/v1/generations/{ids.public('gen', generation_id)}/artifacts/{kind}/{index}"
        query = urlencode({"expires": expires, "signature": self._signature(generation_id, kind, index, expires)})
        return f"{self._base_url}{place}?{query}", until

    def open_link(self, generation_id: UUID, kind: str, index: int, *, expires: int, signature: str) -> Found:
        """The copy that a signed link points at. UnauthorizedError when it was altered or has expired."""
        if not hmac.compare_digest(self._signature(generation_id, kind, index, expires).encode(), signature.encode()):
            raise UnauthorizedError("the signature of this link is not valid")
        with self._database.transaction() as tx:
            if db.now(tx).timestamp() > expires:
                raise UnauthorizedError("this link has expired; ask for a new one")
            row = artifacts.get(tx, generation_id, kind, index)
        if row is None:
            raise NotFoundError("artifact", f"{kind}/{index}")
        return self._found(row)

    def _signature(self, generation_id: UUID, kind: str, index: int, expires: int) -> str:
        message = f"{generation_id}/{kind}/{index}/{expires}"
        return hmac.new(self._secret, message.encode(), hashlib.sha256).hexdigest()
