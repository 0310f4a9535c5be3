"""Events and the deliveries that they cause, stored together in the transaction of their cause: nothing is published that is not a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tracker.core import ids
from tracker.core.events import SENT, endpoint_wants, url_wants
from tracker.core.generation import Generation
from tracker.store import deliveries, endpoints, events
from tracker.store.db import Transaction, text
from tracker.store.endpoints import Endpoint, Heard
from tracker.store.events import Event

FIRST = 1
"""The lane of first attempts; `deliveries` says which others there are."""
Entry = tuple[Event, Generation | None]
"""An event, and the generation that it is about."""


def publish(tx: Transaction, entries: Sequence[Entry], now: datetime, *, but: UUID | None = None) -> int:
    """Store events with one delivery for each receiver that wants them, except `but`. Returns how many deliveries there are."""
    if not entries:
        return 0
    entries = _in_order(entries)
    listening = _stored(tx, entries)
    rows = [row for event, g in entries for row in _deliveries(event, g, listening.get(event.project_id, []), now, but)]
    deliveries.insert(tx, rows)
    return len(rows)


_STORE_AND_LISTEN = f"WITH stored AS ({events.INSERT}) {endpoints.LISTENING}"


def _stored(tx: Transaction, entries: Sequence[Entry]) -> dict[UUID, list[Endpoint]]:
    """Store the events; returns who may want them, by project."""
    sent = [(event, g) for event, g in entries if event.type in SENT]
    if not sent:
        events.insert(tx, [event for event, _ in entries])
        return {}
    about = None if any(g is None for _, g in sent) else [g for _, g in sent if g]
    heard = Heard(
        projects={event.project_id for event, _ in sent},
        types={event.type.value for event, _ in sent},
        tags=None if about is None else {tag for g in about for tag in g.tags},
        providers=None if about is None else {g.provider for g in about},
    )
    rows = events.as_rows([event for event, _ in entries])
    return endpoints.by_project(tx.execute(text(_STORE_AND_LISTEN), {"rows": rows, **heard.parameters()}))


def _in_order(entries: Sequence[Entry]) -> list[Entry]:
    """The same with ids that rise: those made in one millisecond come in any order, and the stream is read by id."""
    rising = sorted(event.id for event, _ in entries)
    return [(replace(event, id=key), g) for key, (event, g) in zip(rising, entries, strict=True)]


def _deliveries(
    event: Event, g: Generation | None, listening: Sequence[Endpoint], now: datetime, but: UUID | None
) -> list[dict[str, Any]]:
    rows = [
        delivery(
            event,
            receiver_id=endpoint.receiver_id,
            endpoint_id=endpoint.id,
            url=endpoint.url,
            now=now,
            wait=endpoint.schedule[0] if endpoint.schedule else 0.0,
        )
        for endpoint in listening
        if endpoint.id != but
        and endpoint_wants(
            event.type, events=endpoint.events, tags=endpoint.tags, providers=endpoint.providers, generation=g
        )
    ]
    if g is not None and g.webhook_url and g.webhook_receiver_id and url_wants(event.type, g.webhook_events):
        rows.append(delivery(event, receiver_id=g.webhook_receiver_id, endpoint_id=None, url=g.webhook_url, now=now))
    return rows


def delivery(
    event: Event,
    *,
    receiver_id: int,
    endpoint_id: UUID | None,
    url: str,
    now: datetime,
    lane: int = FIRST,
    wait: float = 0.0,
) -> dict[str, Any]:
    """A delivery of `event` that is due `wait` seconds from now."""
    return {
        "id": ids.uuid7(now),
        "project_id": event.project_id,
        "event_id": event.id,
        "generation_id": event.generation_id,
        "receiver_id": receiver_id,
        "endpoint_id": endpoint_id,
        "type": event.type.value,
        "url": url,
        "lane": lane,
        "due_at": now + timedelta(seconds=wait),
        "created_at": now,
    }
