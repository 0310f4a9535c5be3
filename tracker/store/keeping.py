"""What a project keeps: its rules for stored copies, how much it has, and what has outlived the rules."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from tracker.core.generation import Artifact
from tracker.store.artifacts import Wanted, artifact_of
from tracker.store.db import Transaction, text


@dataclass(frozen=True, slots=True)
class Rules:
    """`download`: kinds kept where a registration says nothing, () for all and None for none. The bounds are None where there are none."""

    download: tuple[str, ...] | None = None
    keep_for: timedelta | None = None
    keep_bytes: int | None = None
    quota_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Kept:
    """One stored copy with its place."""

    artifact: Artifact
    object_key: str


def rules(tx: Transaction, project_id: UUID) -> Rules:
    """The rules of a project; those of one that is not there keep nothing and bound nothing."""
    row = tx.execute(
        text("SELECT download, keep_for, keep_bytes, quota_bytes FROM projects WHERE id = :id"), {"id": project_id}
    ).first()
    if row is None:
        return Rules()
    download = None if row.download is None else tuple(row.download)
    return Rules(download, row.keep_for, row.keep_bytes, row.quota_bytes)


def put_rules(tx: Transaction, project_id: UUID, wanted: Rules) -> None:
    """Replace the rules of a project."""
    tx.execute(
        text(
            "UPDATE projects SET download = :download, keep_for = :keep_for, keep_bytes = :keep_bytes,"
            " quota_bytes = :quota_bytes WHERE id = :id"
        ),
        {
            "id": project_id, "download": None if wanted.download is None else list(wanted.download),
            "keep_for": wanted.keep_for, "keep_bytes": wanted.keep_bytes, "quota_bytes": wanted.quota_bytes,
        },
    )  # fmt: skip


def take_room(tx: Transaction, wanted: Wanted, size: int) -> bool:
    """Reserve `size` bytes of the project's quota for one copy; False when they are not there.

    The project's row is locked, so that several who ask at once share what is left.
    """
    quota = tx.execute(
        text("SELECT quota_bytes FROM projects WHERE id = :id FOR NO KEY UPDATE"), {"id": wanted.project_id}
    ).scalar_one_or_none()
    if quota is None:
        return True
    others = tx.execute(
        text(
            "SELECT coalesce(sum(size), 0) FROM artifacts WHERE project_id = :project"
            " AND (state = 'stored' OR state = 'pending' AND lease_until > :now)"
            " AND (generation_id, kind, index) <> (:id, :kind, :index)"
        ),
        {
            "project": wanted.project_id, "id": wanted.generation_id, "kind": wanted.kind, "index": wanted.index,
            "now": wanted.now,
        },
    ).scalar_one()  # fmt: skip
    if others + size > quota:
        return False
    tx.execute(
        text(
            "UPDATE artifacts SET size = :size WHERE generation_id = :id AND kind = :kind AND index = :index AND fence = :fence"
        ),
        {"size": size, "id": wanted.generation_id, "kind": wanted.kind, "index": wanted.index, "fence": wanted.fence},
    )
    return True


def outlived(tx: Transaction, now: datetime, limit: int) -> list[Kept]:
    """Copies older than their project's `keep_for`, and the oldest of those beyond `keep_bytes`."""
    rows = tx.execute(
        text(
            """
            SELECT a.* FROM projects p JOIN artifacts a ON a.project_id = p.id AND a.state = 'stored'
             WHERE p.keep_for IS NOT NULL AND a.stored_at < :now - p.keep_for
            UNION
            SELECT a.* FROM projects p CROSS JOIN LATERAL (
                SELECT b.generation_id, b.kind, b.index,
                       sum(b.size) OVER (ORDER BY b.stored_at DESC, b.generation_id, b.kind, b.index) AS newer
                  FROM artifacts b WHERE b.project_id = p.id AND b.state = 'stored') s
              JOIN artifacts a ON (a.generation_id, a.kind, a.index) = (s.generation_id, s.kind, s.index)
             WHERE p.keep_bytes IS NOT NULL AND s.newer > p.keep_bytes
             LIMIT :n"""
        ),
        {"now": now, "n": limit},
    )
    return [Kept(artifact_of(row), row.object_key) for row in rows]


def removed(tx: Transaction, kept: Kept, error: dict[str, Any]) -> bool:
    """The copy is kept no longer: it can be wished anew. False when it was not stored any more."""
    a = kept.artifact
    changed = tx.execute(
        text(
            "UPDATE artifacts SET state = 'failed', object_key = NULL, error = CAST(:error AS jsonb)"
            " WHERE generation_id = :id AND kind = :kind AND index = :index AND state = 'stored' AND object_key = :key"
        ),
        {"id": a.generation_id, "kind": a.kind, "index": a.index, "key": kept.object_key, "error": orjson.dumps(error).decode()},
    )  # fmt: skip
    return changed.rowcount > 0


def page(
    tx: Transaction, project_id: UUID, after: tuple[UUID, str, int] | None, limit: int, since: datetime | None = None
) -> list[Kept]:
    """Stored copies (of generations registered since) in the order of their keys, those behind `after` first."""
    generation_id, kind, index = after or (UUID(int=0), "", 0)
    rows = tx.execute(
        text(
            f"SELECT a.* {_STORED_SINCE} AND (a.generation_id, a.kind, a.index) > (:id, :kind, :index)"
            " ORDER BY a.generation_id, a.kind, a.index LIMIT :n"
        ),
        {"project": project_id, "since": since, "id": generation_id, "kind": kind, "index": index, "n": limit},
    )
    return [Kept(artifact_of(row), row.object_key) for row in rows]


def count(tx: Transaction, project_id: UUID, since: datetime | None = None) -> int:
    """How many such copies there are."""
    found: int = tx.execute(
        text(f"SELECT count(*) {_STORED_SINCE}"), {"project": project_id, "since": since}
    ).scalar_one()
    return found


_STORED_SINCE = (
    "FROM artifacts a JOIN generations g ON g.id = a.generation_id WHERE a.project_id = :project AND a.state = 'stored'"
    " AND (CAST(:since AS timestamptz) IS NULL OR g.registered_at >= :since)"
)


def referred(tx: Transaction, keys: Collection[str]) -> set[str]:
    """Which of these objects a stored copy refers to."""
    rows = tx.execute(text("SELECT object_key FROM artifacts WHERE object_key = ANY (:keys)"), {"keys": list(keys)})
    return {row.object_key for row in rows}


def awaited(tx: Transaction, partials: Iterable[str]) -> set[str]:
    """Which of these partial files a pending copy will go on from."""
    rows = tx.execute(
        text("SELECT partial FROM artifacts WHERE state = 'pending' AND partial = ANY (:names)"),
        {"names": list(partials)},
    )
    return {row.partial for row in rows}
