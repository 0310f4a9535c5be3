"""200 downloads of 20 MB while their workers are killed at random; prints what it cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journeys.films import Films
from tests.journeys.killing import killed_downloads
from tracker import wiring
from tracker.settings import Settings

MB = 1024 * 1024


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_two_hundred_films_under_fire(
    seed: int, services: wiring.Services, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    films = Films(20 * MB, pause=0.02)
    ended = killed_downloads(
        services, settings, tmp_path, count=200, films=films, kills=15, seed=seed, apart=(0.2, 2.0), seconds=300
    )
    with capsys.disabled():
        print(
            f"\nseed {seed}: {ended.kills} kills, {ended.resumed} of 200 taken up again, {ended.fetched:.3f} x the bytes,"
            f" {ended.partials_before} partial files before the sweep, {len(ended.partials_after)} after, wrong {ended.wrong}"
        )
    assert (ended.states, ended.wrong, ended.partials_after) == ({"stored"}, [], [])
    assert ended.kills >= 10
    assert ended.fetched <= 1.3
