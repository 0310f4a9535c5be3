"""kill -9 to download workers in the middle of files: resumed by others, nothing half, nothing twice. The long form is under tests/chaos."""

from __future__ import annotations

from pathlib import Path

from tests.journeys.films import Films
from tests.journeys.killing import killed_downloads
from tracker import wiring
from tracker.settings import Settings


def test_killed_workers_cost_nearly_nothing(services: wiring.Services, settings: Settings, tmp_path: Path) -> None:
    films = Films(6 * 1024 * 1024, pause=0.25)
    ended = killed_downloads(
        services, settings, tmp_path, count=10, films=films, kills=2, seed=1, apart=(0.3, 0.8), seconds=60
    )
    assert (ended.states, ended.wrong, ended.partials_after) == ({"stored"}, [], [])
    assert ended.kills == 2
    assert ended.resumed > 0
    assert ended.fetched <= 1.3
