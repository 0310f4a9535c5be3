"""Downloads whose workers are killed at random: used in the suite with a few files, and under tests/chaos with many."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from tests.journeys.conftest import Workers, until
from tests.journeys.films import Films, serving
from tests.services.copying import ground, video
from tracker import wiring
from tracker.settings import Settings


@dataclass
class Outcome:
    """What became of it. `fetched` is in bytes that left the file server."""

    states: set[str]
    wrong: list[int]
    fetched: float
    kills: int
    partials_before: int
    partials_after: list[str]
    resumed: int


def killed_downloads(
    services: wiring.Services, settings: Settings, logs: Path, *, count: int, films: Films, kills: int, seed: int,
    apart: tuple[float, float], seconds: float,
) -> Outcome:  # fmt: skip
    """Download `count` films while the worker with all its processes is killed `kills` times, at random moments."""
    dice, workers = random.Random(seed), Workers(settings, logs)
    server = serving(films)
    copies = ground(services)
    made = [copies.completed(video(server, f"films/{n}"), task=f"task-{n}") for n in range(count)]
    for name in ("default", "download", "beat"):
        workers.start(name)
    done = 0
    try:
        until(lambda: films.served, 60, "the first bytes")
        while done < kills and _pending(services):
            threading.Event().wait(dice.uniform(*apart))  # chaos, not synchronisation
            workers.kill("download")
            done += 1
            _lapse(services)
            workers.start("download")
            served = films.served
            until(lambda seen=served: films.served > seen or not _pending(services), 60, "it goes on")
        until(lambda: not _pending(services), seconds, "all are stored or failed")
    finally:
        workers.stop()
        server.close()
    rows = [copies.row(g) for g in made]
    wrong = [n for n, row in enumerate(rows) if row.sha256 != films.sha256(n)]
    before = len(copies.partials())
    copies.store.spool.sweep(copies.keeping()._awaited, young=-60)
    broken = [v for v in services.artifacts.verify(copies.project_id) if v.wrong]
    assert not broken
    return Outcome({row.state for row in rows}, wrong, films.served / (count * films.size), done, before,
                   copies.partials(), sum(row.fence > 1 for row in rows))  # fmt: skip


def _pending(services: wiring.Services) -> int:
    with services.database.transaction() as tx:
        return int(tx.execute(text("SELECT count(*) FROM artifacts WHERE state = 'pending'")).scalar_one())


def _lapse(services: wiring.Services) -> Any:
    """All workers are dead at this moment: their leases need not be waited for (45 s)."""
    with services.database.transaction() as tx:
        tx.execute(text("UPDATE artifacts SET due_at = now(), lease_until = NULL WHERE state = 'pending'"))
