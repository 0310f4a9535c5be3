"""The house rules notice what they are there for, and the Makefile says what a newcomer lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = ("pyproject.toml", "requirements.lock", "requirements-dev.lock")


def rules(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(root / ".ci" / "rules.py")], capture_output=True, text=True, check=False)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / ".ci", tmp_path / ".ci")
    for folder in ("tracker", "workers"):
        (tmp_path / folder).mkdir()
    return tmp_path


def test_the_locks_match(tree: Path) -> None:
    found = rules(tree)
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize(
    ("file", "old", "new", "told"),
    [
        ("requirements.lock", "celery==5.7.0", "celery==5.6.0", "requirements.lock has 5.6.0 for `celery[redis]"),
        ("requirements.lock", "requests==", "requestz==", "requirements.lock has no pin for `requests"),
        ("requirements-dev.lock", "orjson==3.13.0", "orjson==3.13.1", "pins another orjson"),
        ("pyproject.toml", '"ruff>=0.14"', '"ruff>=99"', "requirements-dev.lock has"),
        ("requirements.lock", "alembic==", "# https://example.com\nalembic==", "names an address"),
    ],
)
def test_a_lock_that_does_not_match_is_named(tree: Path, file: str, old: str, new: str, told: str) -> None:
    text = (tree / file).read_text()
    assert old in text
    (tree / file).write_text(text.replace(old, new, 1))
    found = rules(tree)
    assert found.returncode == 1
    assert told in found.stderr


def test_a_file_that_grew_too_long_is_named(tree: Path) -> None:
    (tree / "tracker" / "long.py").write_text("x = 1\n" * 301)
    assert rules(tree).stderr == "tracker/long.py has 301 lines, and 300 are the bound; divide it\n"


def pick(path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `.ci/python` where `path` is all there is."""
    return subprocess.run(
        ["/bin/sh", str(ROOT / ".ci" / "python")],
        env={"PATH": str(path), **variables},
        capture_output=True,
        text=True,
        check=False,
    )


def fake(path: Path, script: str) -> Path:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_without_a_python_that_will_do_it_says_what_is_needed(tmp_path: Path) -> None:
    assert "Python 3.11 or newer is needed; install it" in pick(tmp_path).stderr
    fake(tmp_path / "python3", 'case "$1" in -V) echo "Python 3.9.2";; *) exit 1;; esac')
    found = pick(tmp_path)
    assert (found.returncode, found.stdout) == (1, "")
    assert "(found: Python 3.9.2)" in found.stderr


def test_without_venv_it_names_the_package(tmp_path: Path) -> None:
    fake(tmp_path / "python3", 'case "$2" in *ensurepip*) exit 1;; *version_info\\[:2\\]*) echo 3.12;; esac')
    found = pick(tmp_path)
    assert found.returncode == 1
    assert "apt install python3.12-venv" in found.stderr


def test_a_newer_one_is_found_behind_an_old_one_and_can_be_named(tmp_path: Path) -> None:
    fake(tmp_path / "python3", "exit 1")
    (tmp_path / "python3.12").symlink_to(sys.executable)
    assert pick(tmp_path).stdout.strip() == str(tmp_path / "python3.12")
    assert pick(tmp_path, PYTHON=sys.executable).stdout.strip() == sys.executable


def test_make_help_lists_every_target() -> None:
    targets = {
        line.split(":")[0] for line in (ROOT / "Makefile").read_text().splitlines() if ": " in line and "## " in line
    }
    said = subprocess.run(
        ["make", "--no-print-directory"], cwd=ROOT, capture_output=True, text=True, check=True, env=dict(os.environ)
    ).stdout
    assert {"help", "setup", "run", "demo", "test", "check"} <= targets
    assert [target for target in targets if f"make {target} " not in said] == []


def test_make_chaos_runs_the_long_form_of_the_kills() -> None:
    said = subprocess.run(
        ["make", "--no-print-directory", "-n", "chaos"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    [run] = [line for line in said.splitlines() if "tests/chaos" in line]
    assert "TRACKER_TEST_KILLS=20" in run
    assert "tests/journeys/test_webhooks_killed.py" in run
