"""Homes that leave nothing behind, and one tracker that runs through a whole file of tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.embedded.launched import Up
from tracker.embedded.fresh import remove
from tracker.settings import Settings


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    remove(Settings(home=tmp_path / "home"))


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One that runs through the whole module: what kills its children leaves it as it was."""
    tracker = Up(tmp_path_factory.mktemp("up") / "home").ready()
    yield tracker
    assert tracker.end() == 0
    remove(Settings(home=tracker.home))
