"""Everything that is stored encrypted, wherever it lies: read and replaced page by page when keys are rotated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tracker.store.db import Database, text


class Place(NamedTuple):
    """A column of secrets; `found_by` is one of keyed hashes beside it."""

    table: str
    column: str
    found_by: str | None = None


PLACES = (
    Place("signing_secrets", "secret"),
    Place("endpoints", "headers"),
    Place("credentials", "api_key", "api_key_hash"),
)
PAGE = 200
"""Rows locked together: a sender that waits for one must not notice."""


class Sealed(NamedTuple):
    """One secret as it is stored."""

    place: Place
    key: Any
    secret: bytes
    found_by: bytes | None


class Resealed(NamedTuple):
    """What takes its place, and the hash beside it; None where there was none."""

    key: Any
    secret: bytes
    found_by: bytes | None


def count(database: Database) -> int:
    """How many secrets there are."""
    counts = " + ".join(f"(SELECT count({place.column}) FROM {place.table})" for place in PLACES)
    with database.transaction() as tx:
        return int(tx.execute(text(f"SELECT {counts}")).scalar_one())


def pages(database: Database, reseal: Any) -> Iterator[Sequence[Sealed]]:
    """Each page of secrets once, after `reseal` of it was stored: a function from the page to those that are to be replaced."""
    for place in PLACES:
        after: Any = None
        while True:
            with database.transaction() as tx:
                rows = tx.execute(
                    text(
                        f"SELECT id, {place.column} AS secret, {place.found_by or 'NULL'} AS found_by FROM {place.table}"
                        f" WHERE {place.column} IS NOT NULL{'' if after is None else ' AND id > :after'}"
                        f" ORDER BY id LIMIT {PAGE} FOR NO KEY UPDATE"
                    ),
                    {} if after is None else {"after": after},
                ).all()
                page = [Sealed(place, row.id, bytes(row.secret), row.found_by) for row in rows]
                found_by = "" if place.found_by is None else f", {place.found_by} = :found_by"
                for new in reseal(page):
                    tx.execute(
                        text(f"UPDATE {place.table} SET {place.column} = :secret{found_by} WHERE id = :key"),
                        new._asdict(),
                    )
            if not page:
                break
            yield page
            after = page[-1].key
