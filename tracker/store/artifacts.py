"""Durable copies: what is wished, what is under way, what is stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from tracker.core import links
from tracker.core.generation import KINDS, Artifact, Generation, Output
from tracker.store.db import Transaction, text
from tracker.store.rows import records

LEASE = timedelta(seconds=45)
"""Renewed while the work goes on. A lapsed lease is no attempt: the row is due again at once."""
USUAL_LIFE = timedelta(hours=24)
"""How long a link is thought to live when its query does not tell: what most providers promise."""
ASKING = timedelta(seconds=90)
"""How long one worker's question for fresh links keeps the others of the same generation from asking too."""


def artifact_of(row: Any) -> Artifact:
    """The part of a row that people read."""
    return Artifact(**{name: getattr(row, name) for name in Artifact.__dataclass_fields__})


def of_generations(tx: Transaction, generation_ids: Iterable[UUID]) -> dict[UUID, tuple[Artifact, ...]]:
    """The artifacts of each generation, in the order of its outputs."""
    found: dict[UUID, list[Artifact]] = {}
    rows = tx.execute(
        text(
            "SELECT * FROM artifacts WHERE generation_id = ANY (:ids)"
            " ORDER BY generation_id, array_position(CAST(:kinds AS text[]), kind), index"
        ),
        {"ids": list(generation_ids), "kinds": list(KINDS)},
    )
    for row in rows:
        found.setdefault(row.generation_id, []).append(artifact_of(row))
    return {key: tuple(artifacts) for key, artifacts in found.items()}


def get(tx: Transaction, generation_id: UUID, kind: str, index: int) -> Any | None:
    """One artifact with its place in the store."""
    return tx.execute(
        text("SELECT * FROM artifacts WHERE generation_id = :id AND kind = :kind AND index = :index"),
        {"id": generation_id, "kind": kind, "index": index},
    ).first()


_WISHED = {
    "generation_id": "uuid", "kind": "text", "index": "int", "project_id": "uuid", "source_url": "text", "fetch_by": "timestamptz",
}  # fmt: skip
_WISH = f"""
INSERT INTO artifacts ({", ".join(_WISHED)}, due_at, created_at) SELECT r.*, :now, :now FROM {records(_WISHED)}
ON CONFLICT (generation_id, kind, index) DO UPDATE
   SET state = 'pending', source_url = excluded.source_url, due_at = excluded.due_at, error = NULL, attempts = 0, refreshed = 0,
       fetch_by = excluded.fetch_by, object_key = NULL, size = NULL, bytes_done = 0, bytes_per_second = NULL, sha256 = NULL,
       media_type = NULL, etag = NULL, partial = NULL, stored_at = NULL
 WHERE artifacts.state = 'failed'"""


def wish(tx: Transaction, wished: Iterable[tuple[Generation, Output]], now: datetime) -> int:
    """Want copies of these outputs; one that failed before is tried again, one stored or under way stays. Returns how many are new."""
    # Each once, and in one order everywhere: a statement changes no row twice, and none waits for another crosswise.
    rows = {
        (str(g.id), output.kind, output.index): {
            "generation_id": g.id, "kind": output.kind, "index": output.index, "project_id": g.project_id,
            "source_url": output.url, "fetch_by": _fetch_by(output.url, now),
        }
        for g, output in wished
    }  # fmt: skip
    if not rows:
        return 0
    ordered = [row for _, row in sorted(rows.items())]
    return tx.execute(text(_WISH), {"rows": orjson.dumps(ordered).decode(), "now": now}).rowcount


def _fetch_by(url: str, now: datetime) -> datetime:
    return links.expires_at(url) or now + USUAL_LIFE


@dataclass(frozen=True, slots=True)
class Wanted:
    """One claimed artifact with all that fetching it needs."""

    generation_id: UUID
    kind: str
    index: int
    project_id: UUID
    project: str
    provider: str
    credential_id: int
    task_id: str
    task_kind: str | None
    registered_at: datetime
    source_url: str
    attempts: int
    refreshed: int
    fence: int
    etag: str | None
    size: int | None
    """Together with `etag` and `partial`, what the file on disk is a part of."""
    partial: str | None
    fetch_by: datetime
    now: datetime

    @property
    def name(self) -> str:
        """As people and files call it, such as `video-0`."""
        return f"{self.kind}-{self.index}"


def claim(tx: Transaction, *, now: datetime, limit: int) -> list[Wanted]:
    """Claim up to `limit` due artifacts under a lease, those whose links end first before all others."""
    claimed = tx.execute(
        text(
            """
            WITH due AS MATERIALIZED (
                SELECT a.generation_id, a.kind, a.index FROM artifacts a WHERE a.state = 'pending' AND a.due_at <= :now
                 ORDER BY a.fetch_by LIMIT :n FOR UPDATE SKIP LOCKED)
            UPDATE artifacts a SET due_at = :lease, lease_until = :lease, fence = a.fence + 1
              FROM due, generations g, projects p
             WHERE a.generation_id = due.generation_id AND a.kind = due.kind AND a.index = due.index
               AND g.id = a.generation_id AND p.id = a.project_id
            RETURNING a.generation_id, a.kind, a.index, a.project_id, p.name AS project, g.provider, g.credential_id, g.task_id,
                      g.kind AS task_kind, g.registered_at, a.source_url, a.attempts, a.refreshed, a.fence, a.etag, a.size,
                      a.partial, a.fetch_by, CAST(:now AS timestamptz)"""
        ),
        {"now": now, "n": limit, "lease": now + LEASE},
    )
    return sorted((Wanted(*row) for row in claimed), key=lambda wanted: wanted.fetch_by)


def any_due(tx: Transaction, now: datetime) -> bool:
    """Whether an artifact waits to be fetched."""
    return bool(
        tx.execute(
            text("SELECT EXISTS (SELECT FROM artifacts WHERE state = 'pending' AND due_at <= :now)"), {"now": now}
        ).scalar_one()
    )


_KEY = "generation_id = :generation_id AND kind = :kind AND index = :index AND fence = :fence AND state = 'pending'"


def _key(wanted: Wanted) -> dict[str, Any]:
    return {name: getattr(wanted, name) for name in ("generation_id", "kind", "index", "fence")}


def renew(tx: Transaction, wanted: Wanted, *, now: datetime, bytes_done: int, bytes_per_second: float) -> bool:
    """Keep the lease and show progress; False when the claim was lost and the work must stop."""
    kept = tx.execute(
        text(
            "UPDATE artifacts SET due_at = :lease, lease_until = :lease, bytes_done = :done, bytes_per_second = :speed"
            f" WHERE {_KEY}"
        ),
        {**_key(wanted), "lease": now + LEASE, "done": bytes_done, "speed": bytes_per_second},
    )
    return kept.rowcount > 0


def begun(tx: Transaction, wanted: Wanted, *, partial: str | None, etag: str | None, size: int | None) -> bool:
    """Remember what the partial file is a part of (None: there is nothing to go on from); False when the claim was lost."""
    kept = tx.execute(
        text(f"UPDATE artifacts SET partial = :partial, etag = :etag, size = :size WHERE {_KEY}"),
        {**_key(wanted), "partial": partial, "etag": etag, "size": size},
    )
    return kept.rowcount > 0


def retry(
    tx: Transaction, wanted: Wanted, *, due_at: datetime, error: dict[str, Any] | None, attempts: int, bytes_done: int
) -> bool:
    """It will be tried again, after `attempts` tries without progress; False when the claim was lost."""
    kept = tx.execute(
        text(
            "UPDATE artifacts SET due_at = :due_at, lease_until = NULL, attempts = :attempts, bytes_done = :done,"
            f" bytes_per_second = NULL, error = coalesce(CAST(:error AS jsonb), error) WHERE {_KEY}"
        ),
        {
            **_key(wanted), "due_at": due_at, "error": orjson.dumps(error).decode() if error else None,
            "attempts": attempts, "done": bytes_done,
        },
    )  # fmt: skip
    return kept.rowcount > 0


def ask_alone(tx: Transaction, wanted: Wanted, tried: str, now: datetime) -> tuple[str, bool]:
    """The link as it is stored now, and whether the right to ask for this generation's links was taken.

    It is not where somebody else has it, or has brought a link that is not `tried`. The lock comes first: who waited for
    it sees what the other one brought.
    """
    rows = tx.execute(
        text(
            "SELECT kind, index, source_url, asked_at FROM artifacts WHERE generation_id = :id ORDER BY kind, index FOR UPDATE"
        ),
        {"id": wanted.generation_id},
    ).all()
    stored = next((str(row.source_url) for row in rows if (row[0], row[1]) == (wanted.kind, wanted.index)), tried)
    if stored != tried or any(row.asked_at is not None and row.asked_at > now - ASKING for row in rows):
        return stored, False
    tx.execute(text(f"UPDATE artifacts SET asked_at = :now WHERE {_KEY}"), {**_key(wanted), "now": now})
    return stored, True


def fresh_links(tx: Transaction, wanted: Wanted, found: Mapping[tuple[str, int], str], now: datetime) -> None:
    """Store what the provider gives now for every pending copy of the generation, and give back the right to ask."""
    for (kind, index), url in sorted(found.items()):
        tx.execute(
            text(
                "UPDATE artifacts SET source_url = :url, fetch_by = :fetch_by, refreshed = refreshed + 1"
                " WHERE generation_id = :id AND kind = :kind AND index = :index AND state = 'pending'"
            ),
            {"id": wanted.generation_id, "kind": kind, "index": index, "url": url, "fetch_by": _fetch_by(url, now)},
        )
    tx.execute(
        text("UPDATE artifacts SET asked_at = NULL WHERE generation_id = :id AND asked_at IS NOT NULL"),
        {"id": wanted.generation_id},
    )


def stored(
    tx: Transaction, wanted: Wanted, *, object_key: str, size: int, sha256: str, media_type: str, etag: str | None, now: datetime,
    seconds: float,
) -> bool:  # fmt: skip
    """The copy is whole and in its place; False when the claim was lost."""
    kept = tx.execute(
        text(
            "UPDATE artifacts SET state = 'stored', due_at = NULL, lease_until = NULL, object_key = :object_key, size = :size,"
            " bytes_done = :size, bytes_per_second = :speed, sha256 = :sha256, media_type = :media_type, etag = :etag,"
            f" stored_at = :now, error = NULL, partial = NULL, attempts = attempts + 1 WHERE {_KEY}"
        ),
        {
            **_key(wanted), "object_key": object_key, "size": size, "sha256": sha256, "media_type": media_type, "etag": etag,
            "now": now, "speed": size / max(seconds, 1e-6),
        },
    )  # fmt: skip
    return kept.rowcount > 0


def failed(tx: Transaction, wanted: Wanted, *, error: dict[str, Any]) -> bool:
    """It will not be tried again; False when the claim was lost."""
    kept = tx.execute(
        text(
            "UPDATE artifacts SET state = 'failed', due_at = NULL, lease_until = NULL, attempts = attempts + 1, partial = NULL,"
            f" bytes_per_second = NULL, error = CAST(:error AS jsonb) WHERE {_KEY}"
        ),
        {**_key(wanted), "error": orjson.dumps(error).decode()},
    )
    return kept.rowcount > 0


def object_keys(tx: Transaction, generation_id: UUID) -> list[str]:
    """Where the copies of a generation are, to delete them with it."""
    rows = tx.execute(
        text("SELECT object_key FROM artifacts WHERE generation_id = :id AND object_key IS NOT NULL"),
        {"id": generation_id},
    )
    return [row.object_key for row in rows]
