"""Bringing every stored secret under the newest key, so that older ones can be dropped. It may run beside everything, and again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from tracker.errors import ConfigurationError
from tracker.store import sealed
from tracker.store.db import Database
from tracker.store.sealed import Resealed, Sealed
from tracker.store.vault import Vault


class Verdict(StrEnum):
    """What became of a secret: brought under the newest key, there already, or opened by none of ours and left as it is."""

    RESEALED = "resealed"
    CURRENT = "current"
    CLOSED = "closed"


class Seen(NamedTuple):
    """One secret's table, and what became of it."""

    table: str
    verdict: Verdict


class Rotation:
    """Whoever still runs without the newest key cannot read what this has stored."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database, self._vault = database, vault

    def count(self) -> int:
        """How many secrets there are."""
        return sealed.count(self._database)

    def run(self) -> Iterator[Seen]:
        """Each secret once, as soon as it is stored; a page of them shares a transaction."""
        seen: list[Seen] = []

        def reseal(page: Sequence[Sealed]) -> list[Resealed]:
            found = [(one, self._judged(one)) for one in page]
            seen.extend(Seen(one.place.table, verdict) for one, (verdict, _) in found)
            return [new for _, (_, new) in found if new is not None]

        for _ in sealed.pages(self._database, reseal):
            yield from seen
            seen.clear()

    def _judged(self, one: Sealed) -> tuple[Verdict, Resealed | None]:
        try:
            secret = self._vault.decrypt(one.secret)
        except ConfigurationError:
            return Verdict.CLOSED, None
        # The hash has a key of its own, and not every secret is to be found by one.
        found_by = None if one.found_by is None else self._vault.look_up_hash(secret)
        if self._vault.is_newest(one.secret) and found_by == one.found_by:
            return Verdict.CURRENT, None
        return Verdict.RESEALED, Resealed(one.key, self._vault.encrypt(secret), found_by)
