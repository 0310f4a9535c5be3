"""The tables. Every constraint has a name, and a sentence above it says which rule it enforces.

The migrations in `alembic/` make these; `alembic check` (a test) keeps the two equal.
"""

from __future__ import annotations

from tracker.store.tables.accounts import api_keys, credentials, idempotency_keys, projects
from tracker.store.tables.base import metadata
from tracker.store.tables.keeping import artifacts, heartbeats, switches
from tracker.store.tables.sending import attempts, deliveries, endpoints, events, receivers, signing_secrets
from tracker.store.tables.tracking import answers, clock_deltas, clocks, flights, generations, polls

__all__ = [
    "answers",
    "api_keys",
    "artifacts",
    "attempts",
    "clock_deltas",
    "clocks",
    "credentials",
    "deliveries",
    "endpoints",
    "events",
    "flights",
    "generations",
    "heartbeats",
    "idempotency_keys",
    "metadata",
    "polls",
    "projects",
    "receivers",
    "signing_secrets",
    "switches",
]
