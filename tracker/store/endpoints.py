"""Webhook endpoints, the lanes they are called in, and the secrets that sign."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tracker.store.db import Transaction, text

OVERLAP = timedelta(hours=24)
"""How long a rotated secret still signs beside the new one."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a project wants its events. `headers` are encrypted; `rate_limit` is deliveries per second."""

    id: UUID
    project_id: UUID
    url: str
    description: str
    events: tuple[str, ...]
    tags: tuple[str, ...]
    providers: tuple[str, ...]
    headers: bytes | None
    header_names: tuple[str, ...]
    rate_limit: float | None
    schedule: tuple[float, ...] | None
    ca: str | None
    enabled: bool
    disabled_reason: str | None
    created_at: datetime
    updated_at: datetime
    receiver_id: int = 0


_SELECT = "SELECT e.*, r.id AS receiver_id FROM endpoints e JOIN receivers r ON r.endpoint_id = e.id"
_TUPLES = ("events", "tags", "providers", "header_names")


def _endpoint(row: Any) -> Endpoint:
    fields = {name: getattr(row, name) for name in Endpoint.__dataclass_fields__}
    fields |= {name: tuple(fields[name]) for name in _TUPLES}
    fields["schedule"] = None if row.schedule is None else tuple(row.schedule)
    return Endpoint(**fields)


def _columns(endpoint: Endpoint) -> dict[str, Any]:
    fields = {name: getattr(endpoint, name) for name in Endpoint.__dataclass_fields__ if name != "receiver_id"}
    fields |= {name: list(fields[name]) for name in _TUPLES}
    fields["schedule"] = None if endpoint.schedule is None else list(endpoint.schedule)
    return fields


_WRITTEN = [name for name in Endpoint.__dataclass_fields__ if name != "receiver_id"]


def insert(tx: Transaction, endpoint: Endpoint, host: str) -> Endpoint:
    """Store an endpoint with its lane."""
    names = ", ".join(_WRITTEN)
    tx.execute(
        text(f"INSERT INTO endpoints ({names}) VALUES ({', '.join(f':{name}' for name in _WRITTEN)})"),
        _columns(endpoint),
    )
    tx.execute(
        text("INSERT INTO receivers (project_id, endpoint_id, host) VALUES (:project_id, :endpoint_id, :host)"),
        {"project_id": endpoint.project_id, "endpoint_id": endpoint.id, "host": host},
    )
    stored = get(tx, endpoint.project_id, endpoint.id)
    if stored is None:
        raise RuntimeError("an endpoint vanished within its own transaction")
    return stored


def update(tx: Transaction, endpoint: Endpoint) -> None:
    """Store an endpoint as it is now."""
    changes = ", ".join(f"{name} = :{name}" for name in _WRITTEN if name not in {"id", "project_id", "created_at"})
    tx.execute(text(f"UPDATE endpoints SET {changes} WHERE id = :id AND project_id = :project_id"), _columns(endpoint))


def get(tx: Transaction, project_id: UUID, endpoint_id: UUID, *, lock: bool = False) -> Endpoint | None:
    """One endpoint of a project."""
    row = tx.execute(
        text(f"{_SELECT} WHERE e.id = :id AND e.project_id = :project_id{' FOR NO KEY UPDATE OF e' if lock else ''}"),
        {"id": endpoint_id, "project_id": project_id},
    ).first()
    return None if row is None else _endpoint(row)


def newest(tx: Transaction, project_id: UUID, before: UUID | None, limit: int) -> list[Endpoint]:
    """Endpoints of a project, newest first."""
    rows = tx.execute(
        text(
            f"{_SELECT} WHERE e.project_id = :project_id AND (CAST(:before AS uuid) IS NULL OR e.id < :before)"
            " ORDER BY e.id DESC LIMIT :limit"
        ),
        {"project_id": project_id, "before": before, "limit": limit},
    )
    return [_endpoint(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Heard:
    """What there is to be heard of. `tags` or `providers` None: something that is about no generation, for which filters do not count."""

    projects: Collection[UUID]
    types: Collection[str]
    tags: Collection[str] | None
    providers: Collection[str] | None

    def parameters(self) -> dict[str, Any]:
        """What LISTENING takes."""
        fields = {name: getattr(self, name) for name in Heard.__dataclass_fields__}
        return {name: None if values is None else sorted(values) for name, values in fields.items()}


LISTENING = f"""
{_SELECT} WHERE e.project_id = ANY (:projects) AND e.enabled AND (e.events = '{{}}' OR e.events && CAST(:types AS text[]))
   AND (e.tags = '{{}}' OR CAST(:tags AS text[]) IS NULL OR e.tags && CAST(:tags AS text[]))
   AND (e.providers = '{{}}' OR CAST(:providers AS text[]) IS NULL OR e.providers && CAST(:providers AS text[]))
 ORDER BY e.id FOR KEY SHARE OF e, r"""
"""The endpoints that are on, without those that want none of it: each is held until the commit, for a delivery to one that is deleted
meanwhile would fail the whole record."""


def by_project(rows: Iterable[Any]) -> dict[UUID, list[Endpoint]]:
    """What LISTENING found."""
    found: dict[UUID, list[Endpoint]] = {}
    for row in rows:
        found.setdefault(row.project_id, []).append(_endpoint(row))
    return found


def delete(tx: Transaction, project_id: UUID, endpoint_id: UUID) -> bool:
    """Remove an endpoint with its deliveries; False when there is none."""
    gone = tx.execute(
        text("DELETE FROM endpoints WHERE id = :id AND project_id = :project_id"),
        {"id": endpoint_id, "project_id": project_id},
    )
    return gone.rowcount > 0


def receivers_of_hosts(tx: Transaction, project_id: UUID, hosts: Iterable[str]) -> dict[str, int]:
    """The lanes of a project's ad-hoc webhook URLs, one for each host:port; inserted in one order everywhere."""
    wanted = sorted(set(hosts))
    found = _of_hosts(tx, project_id, wanted)
    missing = [host for host in wanted if host not in found]
    if missing:
        tx.execute(
            text(
                "INSERT INTO receivers (project_id, host) SELECT :project_id, host FROM unnest(CAST(:hosts AS text[])) AS h (host)"
                " ON CONFLICT DO NOTHING"
            ),
            {"project_id": project_id, "hosts": missing},
        )
        found |= _of_hosts(tx, project_id, missing)
    return found


def _of_hosts(tx: Transaction, project_id: UUID, hosts: list[str]) -> dict[str, int]:
    rows = tx.execute(
        text(
            "SELECT host, id FROM receivers WHERE project_id = :project_id AND host = ANY (:hosts) AND endpoint_id IS NULL"
        ),
        {"project_id": project_id, "hosts": hosts},
    )
    return {row.host: row.id for row in rows}


def add_secret(
    tx: Transaction, *, secret_id: UUID, project_id: UUID, endpoint_id: UUID | None, secret: bytes, now: datetime
) -> None:
    """Make `secret` the current one; the one before it still signs for 24 h. Whoever rotates an endpoint's holds its row.

    For a project's the row is locked here: of two that rotate at once the second has to see what the first made current.
    """
    if endpoint_id is None:
        tx.execute(text("SELECT FROM projects WHERE id = :id FOR NO KEY UPDATE"), {"id": project_id})
    owner = {"project_id": project_id, "endpoint_id": endpoint_id}
    tx.execute(
        text(
            "UPDATE signing_secrets SET expires_at = :until WHERE project_id = :project_id"
            " AND endpoint_id IS NOT DISTINCT FROM :endpoint_id AND expires_at IS NULL"
        ),
        {**owner, "until": now + OVERLAP},
    )
    tx.execute(
        text(
            "INSERT INTO signing_secrets (id, project_id, endpoint_id, secret, created_at)"
            " VALUES (:id, :project_id, :endpoint_id, :secret, :now)"
        ),
        {**owner, "id": secret_id, "secret": secret, "now": now},
    )


def secrets(tx: Transaction, project_id: UUID, endpoint_id: UUID | None, now: datetime) -> list[bytes]:
    """The encrypted secrets that sign now, the current one first."""
    rows = tx.execute(
        text(
            "SELECT secret FROM signing_secrets WHERE project_id = :project_id AND endpoint_id IS NOT DISTINCT FROM :endpoint_id"
            " AND (expires_at IS NULL OR expires_at > :now) ORDER BY expires_at DESC NULLS FIRST"
        ),
        {"project_id": project_id, "endpoint_id": endpoint_id, "now": now},
    )
    return [row.secret for row in rows]


def sealed(tx: Transaction) -> list[bytes]:
    """Everything encrypted that belongs to endpoints and projects: what signs, and headers."""
    rows = tx.execute(
        text("SELECT secret FROM signing_secrets UNION ALL SELECT headers FROM endpoints WHERE headers IS NOT NULL")
    )
    return [row.secret for row in rows]


def disable(tx: Transaction, endpoint_id: UUID, reason: str, now: datetime) -> bool:
    """Turn an endpoint off; False when it was off already."""
    off = tx.execute(
        text(
            "UPDATE endpoints SET enabled = false, disabled_reason = :reason, updated_at = :now WHERE id = :id AND enabled"
        ),
        {"id": endpoint_id, "reason": reason, "now": now},
    )
    return off.rowcount > 0


def revive(tx: Transaction, endpoint_id: UUID) -> None:
    """Forget how its receiver failed: it was mended, and the next delivery will show."""
    tx.execute(
        text(
            "UPDATE receivers SET failing = 0, quiet_until = NULL, asked_until = NULL, failing_since = NULL WHERE endpoint_id = :id"
        ),
        {"id": endpoint_id},
    )
