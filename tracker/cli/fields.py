"""Stored things as JSON and tables show them. Secrets have no place here."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from tracker.core import ids
from tracker.core.times import rfc3339

if TYPE_CHECKING:
    from tracker.store.credentials import Credential
    from tracker.store.endpoints import Endpoint
    from tracker.store.keys import Key


def time_of(at: datetime | None) -> str | None:
    """A time as callers see it."""
    return None if at is None else rfc3339(at)


def endpoint(e: Endpoint) -> dict[str, Any]:
    """An endpoint; of its headers the names alone."""
    same = ("url", "description", "rate_limit", "ca", "enabled", "disabled_reason")
    return {
        "id": ids.public("ep", e.id),
        **{name: getattr(e, name) for name in same},
        **{name: list(getattr(e, name)) for name in ("events", "tags", "providers")},
        "headers": dict.fromkeys(e.header_names, "***"),
        "schedule": None if e.schedule is None else list(e.schedule),
        "created_at": time_of(e.created_at),
    }


def delivery(row: Any) -> dict[str, Any]:
    """A delivery without its attempts."""
    return {
        "id": ids.public("dlv", row.id),
        "event_id": ids.public("evt", row.event_id),
        "type": row.type,
        "endpoint_id": row.endpoint_id and ids.public("ep", row.endpoint_id),
        "url": row.url,
        "generation_id": row.generation_id and ids.public("gen", row.generation_id),
        "state": row.state,
        "next_attempt_at": time_of(row.due_at),
        "created_at": time_of(row.created_at),
    }


def attempt(row: Any) -> dict[str, Any]:
    """One try to deliver."""
    same = ("duration_ms", "status_code", "error_class", "response", "worker")
    return {"number": row.number, "at": time_of(row.at), **{name: getattr(row, name) for name in same}}


def credential(c: Credential) -> dict[str, Any]:
    """A provider account without its key."""
    same = (
        "name", "base_url", "requests_per_second", "concurrency", "poll_price", "poll_longest", "state", "paused_reason",
    )  # fmt: skip
    return {
        **{name: getattr(c, name) for name in same},
        "providers": list(c.providers),
        "has_api_key": c.api_key is not None,
        "from_environment": c.environment_provider is not None,
        "paused_at": time_of(c.paused_at),
        "probe_at": time_of(c.probe_at),
    }


def key(k: Key) -> dict[str, Any]:
    """An API key without its secret."""
    return {
        "id": ids.public("key", k.id),
        "project": k.project,
        "name": k.name,
        "prefix": k.prefix,
        "scopes": list(k.scopes),
        **{name: time_of(getattr(k, name)) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")},
    }
