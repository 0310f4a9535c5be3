"""The wheel is complete: installed elsewhere, without the checkout, it migrates a database and runs."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tracker.embedded.environment import complete
from tracker.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    [built] = folder.glob("*.whl")
    return built


@dataclass
class Installed:
    """An environment of its own that holds the wheel, and sees the dependencies of the test's environment."""

    programs: Path
    elsewhere: Path

    def run(self, *command: str, variables: dict[str, str] | None = None) -> str:
        base = {name: value for name, value in os.environ.items() if not name.startswith(("TRACKER_", "PG", "PYTHON"))}
        done = subprocess.run(
            [str(self.programs / command[0]), *command[1:]], cwd=self.elsewhere, env=base | (variables or {}), capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    programs = folder / "venv" / "bin"
    [site] = (folder / "venv" / "lib").glob("python*/site-packages")
    # A folder that is named in a .pth file is searched, but the .pth files within it are not: an editable tracker there stays out.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(programs / "python"), "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--no-deps", "--no-index", "--quiet", str(wheel)], check=True, capture_output=True)
    (folder / "elsewhere").mkdir()
    return Installed(programs, folder / "elsewhere")


def test_it_carries_what_runs_and_nothing_else(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    folders = {name.partition("/")[0] for name in names}
    assert folders == {"tracker", "workers", f"generation_tracker-{wheel.name.split('-')[1]}.dist-info"}
    for needed in (
        "tracker/_alembic/env.py",
        "tracker/simulator/media/clip.mp4",
        "tracker/client.py",
        "workers/app.py",
    ):
        assert needed in names
    assert [name for name in names if name.startswith("tracker/_alembic/versions/2")]
    assert [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".env"))] == []
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_it_is_the_installed_one_that_runs(installed: Installed) -> None:
    place = installed.run("python", "-c", "import tracker, workers; print(tracker.__file__, workers.__file__)")
    assert str(ROOT) not in place
    assert "Commands" in installed.run("tracker", "--help")
    assert "--list" in installed.run("tracker", "simulator", "--help")


def test_it_migrates_a_database_from_anywhere(
    installed: Installed, settings: Settings, empty_database_url: str
) -> None:
    secret = type(settings.database_url)
    assert secret is not type(None)
    fresh = settings.changed(database_url=secret(empty_database_url))  # type: ignore[call-arg,misc]
    variables = complete(fresh, {}, own_database=False, simulator_url=None)
    assert "the database schema is at " in installed.run("tracker", "migrate", variables=variables)
    assert installed.run("tracker", "list", variables=variables) == "no generations\n"
