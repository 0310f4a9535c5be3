"""Stored things as callers see them. Secrets have no place here: what must not be read is left out or masked."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from tracker.core import ids
from tracker.core.times import rfc3339
from tracker.errors import NotFoundError
from tracker.store.credentials import Credential
from tracker.store.endpoints import Endpoint
from tracker.store.keys import Key

NOUNS = {"gen": "generation", "evt": "event", "dlv": "delivery", "ep": "endpoint", "key": "key"}


def parsed(prefix: str, text: str) -> UUID:
    """The id behind a public one. What is no such id is as unknown as any other."""
    found = ids.parse(prefix, text)
    if found is None:
        raise NotFoundError(NOUNS[prefix], text)
    return found


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)


def _public(prefix: str, key: UUID | None) -> str | None:
    return None if key is None else ids.public(prefix, key)


def transition(row: Any) -> dict[str, Any]:
    """One step of a generation."""
    return {
        "sequence": row.sequence,
        "from": row.from_state,
        "to": row.to_state,
        "provider_status": row.provider_status,
        "at": rfc3339(row.at),
        "detail": row.detail,
    }


def delivery(row: Any) -> dict[str, Any]:
    """A delivery without its attempts."""
    return {
        "id": ids.public("dlv", row.id),
        "event_id": ids.public("evt", row.event_id),
        "type": row.type,
        "endpoint_id": _public("ep", row.endpoint_id),
        "url": row.url,
        "generation_id": _public("gen", row.generation_id),
        "state": row.state,
        "next_attempt_at": _time(row.due_at),
        "created_at": rfc3339(row.created_at),
    }


def attempt(row: Any) -> dict[str, Any]:
    """One try to deliver."""
    same = ("number", "duration_ms", "status_code", "error_class", "response", "worker")
    return {**{name: getattr(row, name) for name in same}, "at": rfc3339(row.at)}


def endpoint(e: Endpoint) -> dict[str, Any]:
    """An endpoint. The values of its headers are secrets: only their names are shown."""
    same = ("url", "description", "rate_limit", "ca", "enabled", "disabled_reason")
    return {
        "id": ids.public("ep", e.id),
        **{name: getattr(e, name) for name in same},
        **{name: list(getattr(e, name)) for name in ("events", "tags", "providers")},
        "headers": dict.fromkeys(e.header_names, "***"),
        "schedule": None if e.schedule is None else list(e.schedule),
        "created_at": rfc3339(e.created_at),
        "updated_at": rfc3339(e.updated_at),
    }


def credential(c: Credential, base_url: str) -> dict[str, Any]:
    """A provider account without its key."""
    same = (
        "name", "base_url", "requests_per_second", "concurrency", "poll_price", "poll_longest", "state", "paused_reason",
    )  # fmt: skip
    return {
        **{name: getattr(c, name) for name in same},
        "providers": list(c.providers),
        "has_api_key": c.api_key is not None,
        "from_environment": c.environment_provider is not None,
        "paused_at": _time(c.paused_at),
        "callback_url": f"{base_url}/callbacks/{c.providers[0]}/{c.callback_token}" if c.providers else None,
        "created_at": rfc3339(c.created_at),
        "updated_at": rfc3339(c.updated_at),
    }


def key(k: Key) -> dict[str, Any]:
    """An API key without its secret."""
    return {
        "id": ids.public("key", k.id),
        "project": k.project,
        "name": k.name,
        "prefix": k.prefix,
        "scopes": list(k.scopes),
        **{name: _time(getattr(k, name)) for name in ("created_at", "expires_at", "revoked_at", "last_used_at")},
    }


def event(event_id: UUID, body: bytes) -> dict[str, Any]:
    """An event as its webhook carries it, with its id."""
    return {"id": ids.public("evt", event_id), **orjson.loads(body)}
