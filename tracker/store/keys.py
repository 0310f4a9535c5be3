"""Projects, and the API keys that act for them. Keys are kept as hashes only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tracker.store.db import Transaction, ahead, text


@dataclass(frozen=True, slots=True)
class Key:
    """An API key without its secret."""

    id: UUID
    project_id: UUID
    project: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


_SELECT = "SELECT k.*, p.name AS project FROM api_keys k JOIN projects p ON p.id = k.project_id"
_SELECT_NOW = _SELECT.replace(" FROM", ", clock_timestamp() AS now FROM", 1)


def _key(row: Any) -> Key:
    return Key(**{**{name: getattr(row, name) for name in Key.__dataclass_fields__}, "scopes": tuple(row.scopes)})


def project(tx: Transaction, name: str) -> UUID | None:
    """The id of a project."""
    found: UUID | None = tx.execute(
        text("SELECT id FROM projects WHERE name = :name"), {"name": name}
    ).scalar_one_or_none()
    return found


def projects(tx: Transaction) -> list[tuple[str, UUID]]:
    """Every project, by name."""
    return [(row.name, row.id) for row in tx.execute(text("SELECT name, id FROM projects ORDER BY name"))]


def make_project(tx: Transaction, name: str, project_id: UUID) -> tuple[UUID, bool]:
    """The id of a project, and whether it was made just now (two who make it at once get the same)."""
    made = tx.execute(
        text("INSERT INTO projects (id, name) VALUES (:id, :name) ON CONFLICT DO NOTHING"),
        {"id": project_id, "name": name},
    )
    found: UUID = tx.execute(text("SELECT id FROM projects WHERE name = :name"), {"name": name}).scalar_one()
    return found, made.rowcount > 0


def insert(
    tx: Transaction, *, key_id: UUID, project_id: UUID, name: str, prefix: str, hash_: bytes, scopes: list[str], now: datetime,
    expires_at: datetime | None,
) -> bool:  # fmt: skip
    """Store a key; False when one with this hash is there already."""
    made = tx.execute(
        text(
            "INSERT INTO api_keys (id, project_id, name, prefix, hash, scopes, created_at, expires_at)"
            " VALUES (:id, :project_id, :name, :prefix, :hash, :scopes, :now, :expires_at) ON CONFLICT DO NOTHING"
        ),
        {
            "id": key_id, "project_id": project_id, "name": name, "prefix": prefix, "hash": hash_, "scopes": scopes, "now": now,
            "expires_at": expires_at,
        },
    )  # fmt: skip
    return made.rowcount > 0


def by_hash(tx: Transaction, hash_: bytes) -> tuple[Key, datetime] | None:
    """The key with this hash, whether it is valid or not, and the time at which it was found: every request asks for both."""
    row = tx.execute(text(f"{_SELECT_NOW} WHERE k.hash = :hash"), {"hash": hash_}).first()
    return None if row is None else (_key(row), row.now + ahead(tx))


def get(tx: Transaction, project_id: UUID, key_id: UUID) -> Key | None:
    """One key of a project."""
    row = tx.execute(
        text(f"{_SELECT} WHERE k.id = :id AND k.project_id = :project_id"), {"id": key_id, "project_id": project_id}
    ).first()
    return None if row is None else _key(row)


def newest(tx: Transaction, project_id: UUID | None, before: UUID | None, limit: int) -> list[Key]:
    """Keys, newest first; of one project, or of all."""
    rows = tx.execute(
        text(
            f"{_SELECT} WHERE (CAST(:project_id AS uuid) IS NULL OR k.project_id = :project_id)"
            " AND (CAST(:before AS uuid) IS NULL OR k.id < :before) ORDER BY k.id DESC LIMIT :limit"
        ),
        {"project_id": project_id, "before": before, "limit": limit},
    )
    return [_key(row) for row in rows]


def revoke(tx: Transaction, key_id: UUID, now: datetime) -> None:
    """End a key; its record stays."""
    tx.execute(
        text("UPDATE api_keys SET revoked_at = coalesce(revoked_at, :now) WHERE id = :id"), {"id": key_id, "now": now}
    )


def touch(tx: Transaction, key_id: UUID, now: datetime) -> None:
    """Note that a key is used."""
    tx.execute(text("UPDATE api_keys SET last_used_at = :now WHERE id = :id"), {"id": key_id, "now": now})
