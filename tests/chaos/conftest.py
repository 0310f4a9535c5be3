"""Runs only when it is named (`python -m pytest tests/chaos`): it takes minutes, and a run of the whole suite leaves it out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.journeys.conftest import receiver, simulator

__all__ = ["receiver", "simulator"]


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    here = Path(__file__).parent
    named = any(
        here in (path, *path.parents) for path in (Path(arg.partition("::")[0]).resolve() for arg in config.args)
    )
    return None if named else True
