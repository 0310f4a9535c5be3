"""A worker that finds another schema than its own does nothing, says so once, and begins when the schema is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psycopg

from tracker.settings import Settings
from tracker.store.migrations import head, migrate

from .conftest import Workers, until


def _one(url: str, query: str) -> Any:
    with psycopg.connect(url) as connection:
        found = connection.execute(query).fetchone()  # type: ignore[call-overload]
    return None if found is None else found[0]


def test_workers_wait_for_the_migration(settings: Settings, tmp_path: Path) -> None:
    url = settings.required("database_url")
    migrate(url, "base")
    (tmp_path / "logs").mkdir()
    workers, log = Workers(settings, tmp_path / "logs"), tmp_path / "logs" / "default.log"
    workers.start("default")
    workers.start("beat")
    try:
        workers.ready()
        refusal = f"the database schema is at nothing but {head()} is needed; run `tracker migrate`"
        until(lambda: refusal in log.read_text(), 20, workers.said)
        migrate(url)
        until(lambda: _one(url, "SELECT at FROM heartbeats WHERE name = 'tick'"), 20, workers.said)
        assert log.read_text().count(refusal) == 1
        assert "Traceback" not in log.read_text()
    finally:
        workers.stop()
