"""Provider accounts, their budget and their health."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tracker.core.pausing import Health
from tracker.store.db import Transaction, text


@dataclass(frozen=True, slots=True)
class Credential:
    """One account at one or more providers. `api_key` is encrypted; `environment_provider` is set where the environment gave it."""

    id: int
    project_id: UUID
    name: str
    environment_provider: str | None
    providers: tuple[str, ...]
    base_url: str | None
    api_key: bytes | None
    callback_token: str
    state: str
    paused_reason: str | None
    paused_at: datetime | None
    refused: tuple[UUID, ...]
    probes: int
    probe_at: datetime | None
    blocked_until: datetime | None
    failing: int
    limited: int
    requests_per_second: float
    concurrency: int
    batch_size: int
    no_batch_until: datetime | None
    poll_price: float | None
    poll_longest: float | None
    created_at: datetime
    updated_at: datetime

    @property
    def health(self) -> Health:
        """What `pausing.judge` needs to know."""
        paused = self.state == "paused"
        return Health(
            paused, self.paused_reason, self.refused, self.probes, self.probe_at, self.blocked_until, self.failing, self.limited,
        )  # fmt: skip


def from_row(row: Any) -> Credential:
    """A credential from a row that has all its columns."""
    fields = {name: getattr(row, name) for name in Credential.__dataclass_fields__}
    return Credential(**{**fields, "providers": tuple(row.providers), "refused": tuple(row.refused)})


ORDER = "c.name, c.environment_provider NULLS FIRST"
"""By name; what was stored by hand comes before what the environment gives."""


def of_project(tx: Transaction, project_id: UUID) -> list[Credential]:
    """The credentials of a project by name; what was stored by hand comes before what the environment gives."""
    rows = tx.execute(
        text(f"SELECT * FROM credentials c WHERE project_id = :id ORDER BY {ORDER}"),
        {"id": project_id},
    )
    return [from_row(row) for row in rows]


def by_id(tx: Transaction, ids: list[int]) -> dict[int, Credential]:
    """Credentials by id."""
    rows = tx.execute(text("SELECT * FROM credentials WHERE id = ANY (:ids)"), {"ids": ids})
    return {row.id: from_row(row) for row in rows}


def lock(tx: Transaction, credential_id: int, *, against_use: bool = False) -> Credential | None:
    """One credential, locked until the end of the transaction; `against_use` also keeps new generations from naming it."""
    strength = "UPDATE" if against_use else "NO KEY UPDATE"
    row = tx.execute(text(f"SELECT * FROM credentials WHERE id = :id FOR {strength}"), {"id": credential_id}).first()
    return None if row is None else from_row(row)


def hold(tx: Transaction, credential_id: int) -> Sequence[str]:
    """Keep a credential from being deleted until the end of the transaction; what it serves now, nothing where it is gone."""
    row = tx.execute(
        text("SELECT providers FROM credentials WHERE id = :id FOR KEY SHARE"), {"id": credential_id}
    ).first()
    return () if row is None else row.providers


def by_token(tx: Transaction, token: str) -> Credential | None:
    """The credential that an inbound callback's token belongs to."""
    row = tx.execute(text("SELECT * FROM credentials WHERE callback_token = :token"), {"token": token}).first()
    return None if row is None else from_row(row)


def by_key_hash(tx: Transaction, hashes: Sequence[bytes]) -> list[Credential]:
    """The credentials whose provider key has one of these keyed hashes."""
    rows = tx.execute(
        text("SELECT * FROM credentials WHERE api_key_hash = ANY (:hashes) ORDER BY id"), {"hashes": list(hashes)}
    )
    return [from_row(row) for row in rows]


def put(
    tx: Transaction, *, project_id: UUID, name: str, environment_provider: str | None, fields: dict[str, Any], token: str, now: datetime,
) -> Credential:  # fmt: skip
    """Store a credential, or change only `fields` of the one that is there."""
    given = {**fields, "updated_at": now}
    key = {"project_id": project_id, "name": name, "environment_provider": environment_provider}
    # A new account begins with a full bucket.
    columns = {**key, "callback_token": token, "tokens": fields.get("requests_per_second", 20.0), **given}
    row = tx.execute(
        text(
            f"INSERT INTO credentials ({', '.join(columns)}) VALUES ({', '.join(f':{c}' for c in columns)})"
            " ON CONFLICT ON CONSTRAINT credentials_name_unique DO UPDATE"
            f" SET {', '.join(f'{c} = excluded.{c}' for c in given)} RETURNING *"
        ),
        columns,
    ).one()
    return from_row(row)


def delete(tx: Transaction, credential_id: int) -> None:
    """Remove a credential that no generation names any more."""
    tx.execute(text("DELETE FROM credentials WHERE id = :id"), {"id": credential_id})


def pending_generations(tx: Transaction, credential_id: int) -> list[UUID]:
    """The generations of a credential that are not final, ordered by id."""
    rows = tx.execute(
        text(
            "SELECT id FROM generations WHERE credential_id = :id AND state NOT IN ('completed', 'failed', 'cancelled')"
            " ORDER BY id"
        ),
        {"id": credential_id},
    )
    return [row.id for row in rows]


def named(tx: Transaction, credential_id: int) -> bool:
    """Whether any generation, ended or not, names this credential."""
    return bool(
        tx.execute(
            text("SELECT EXISTS (SELECT FROM generations WHERE credential_id = :id)"), {"id": credential_id}
        ).scalar_one()
    )


def write_health(tx: Transaction, credential_id: int, health: Health, paused_at: datetime | None) -> None:
    """Store how a locked credential fares."""
    tx.execute(
        text(
            "UPDATE credentials SET state = :state, paused_reason = :reason, paused_at = :paused_at, refused = :refused,"
            " probes = :probes, probe_at = :probe_at, blocked_until = :blocked_until, failing = :failing,"
            " limited = :limited WHERE id = :id"
        ),
        {
            "id": credential_id, "state": "paused" if health.paused else "active", "reason": health.reason,
            "paused_at": paused_at, "refused": list(health.refused), "probes": health.probes, "probe_at": health.probe_at,
            "blocked_until": health.blocked_until, "failing": health.failing,
            "limited": health.limited,
        },
    )  # fmt: skip


def no_batch(tx: Transaction, credential_id: int, until: datetime) -> None:
    """Remember that this relay has no working batch path; what was believed for longer stays believed."""
    tx.execute(
        text("UPDATE credentials SET no_batch_until = greatest(no_batch_until, :until), batch_size = 1 WHERE id = :id"),
        {"id": credential_id, "until": until},
    )


def batch_again(tx: Transaction, now: datetime, sizes: dict[str, int]) -> None:
    """Try accounts whose relay had no batch path for one again; `sizes` are the providers' batch sizes. Waits for nobody."""
    rows = tx.execute(
        text("SELECT id, providers FROM credentials WHERE no_batch_until <= :now FOR NO KEY UPDATE SKIP LOCKED"),
        {"now": now},
    )
    for row in rows.all():
        size = min((sizes.get(provider, 1) for provider in row.providers), default=1)
        tx.execute(
            text("UPDATE credentials SET no_batch_until = NULL, batch_size = :size WHERE id = :id"),
            {"id": row.id, "size": size},
        )
