"""Rows made directly in a fresh database: the store is tested without any service above it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tracker.core import backoff, ids
from tracker.core.schedule import Clock
from tracker.store import db, due
from tracker.store.db import Database, Transaction
from tracker.store.ready import Starts


@dataclass
class Rows:
    """A database with one project; everything else is made by the test."""

    database: Database
    project: UUID

    def run(self, query: str, **values: Any) -> int:
        with self.database.transaction() as tx:
            return int(tx.execute(text(query), values).rowcount)

    def scalar(self, query: str, **values: Any) -> Any:
        with self.database.transaction() as tx:
            return tx.execute(text(query), values).scalar_one_or_none()

    def all(self, query: str, **values: Any) -> list[Any]:
        with self.database.transaction() as tx:
            return list(tx.execute(text(query), values))

    def now(self) -> datetime:
        with self.database.transaction() as tx:
            return db.now(tx)

    def credential(self, name: str, *, rate: float = 1e6, concurrency: int = 1_000_000, tokens: float = 1e6) -> int:
        return int(
            self.scalar(
                "INSERT INTO credentials (project_id, name, providers, callback_token, requests_per_second, concurrency, tokens)"
                " VALUES (:project, :name, '{luma}', :name, :rate, :concurrency, :tokens) RETURNING id",
                project=self.project, name=name, rate=rate, concurrency=concurrency, tokens=tokens,
            )
        )  # fmt: skip

    def clock(self, subject: str = "", clock: Clock | None = None) -> int:
        clock = clock or Clock()
        return int(
            self.scalar(
                "INSERT INTO clocks (provider, subject, phase, events, exposure, gaps, price)"
                " VALUES ('luma', :subject, 'waiting', :events, :exposure, :gaps, 0.5) RETURNING id",
                subject=subject, events=clock.events, exposure=clock.exposure, gaps=clock.gaps(0.5),
            )
        )  # fmt: skip

    def polls(
        self,
        count: int,
        credential: int,
        clock: int,
        *,
        due: str = "interval '0'",
        lane: int = 0,
        age: str = "interval '5 min'",
    ) -> None:
        """Registered generations with their places on the schedule; `due` is how long ago."""
        self.run(
            f"""
            WITH made AS (
                INSERT INTO generations (id, project_id, provider, credential_id, task_id, registered_at, timeout, timeout_at,
                                         give_up_at, changed_at)
                SELECT gen_random_uuid(), :project, 'luma', :credential, gen_random_uuid()::text, now() - {age}, '2 h', now() + interval '2 h',
                       now() + interval '48 h', now() FROM generate_series(1, :count) RETURNING id)
            INSERT INTO polls (generation_id, credential_id, clock_id, due_at, clock_from, timeout_at, lane)
            SELECT id, :credential, :clock, now() - {due}, now() - {age}, now() + interval '2 h', :lane FROM made""",
            project=self.project, credential=credential, clock=clock, count=count, lane=lane,
        )  # fmt: skip

    def claim(
        self, limit: int = 200, now: datetime | None = None, starts: Starts | None = None
    ) -> list[tuple[UUID, int]]:
        with self.database.transaction() as tx:
            claimed = self.claimed(tx, limit, now, starts)
        return claimed.polls.pairs if claimed else []

    def claimed(
        self, tx: Transaction, limit: int = 200, now: datetime | None = None, starts: Starts | None = None
    ) -> due.Claimed | None:
        """All that a claim gives, within a transaction of the test's own."""
        at = now or db.now(tx)
        return due.claim(
            tx,
            batch=ids.uuid7(at),
            now=at,
            limit=limit,
            longest=60.0,
            most_slow=4,
            probe_waits=backoff.PAUSE_SCHEDULE,
            starts=starts or Starts(),
        )

    def whose(self, claims: list[tuple[UUID, int]]) -> dict[int, int]:
        """How many of these claims each credential has."""
        rows = self.all(
            "SELECT credential_id, count(*) FROM polls WHERE generation_id = ANY (:ids) GROUP BY 1",
            ids=[key for key, _ in claims],
        )
        return {row[0]: row[1] for row in rows}


@pytest.fixture
def rows(database_url: str) -> Iterator[Rows]:
    database = Database(database_url, size=8)
    project = ids.uuid7(datetime.fromisoformat("2026-01-01T00:00:00+00:00"))
    made = Rows(database, project)
    made.run("INSERT INTO projects (id, name) VALUES (:id, 'test')", id=project)
    yield made
    database.close()


__all__ = ["Rows", "timedelta"]
