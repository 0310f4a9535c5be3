"""The import contracts of `.importlinter` hold, and each of them notices: it is broken here once on purpose, in a copy of the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

FORBIDDEN = [
    # One line for each way to break a contract: the contract, the file, and the import that must not be there.
    ("Imports only point down", "tracker/store/db.py", "import tracker.services.forms"),
    ("Imports only point down", "tracker/providers/base.py", "import tracker.store.db"),
    ("Imports only point down", "tracker/cli/main.py", "import tracker.embedded.home"),
    ("Imports only point down", "tracker/logs.py", "import tracker.settings"),
    ("Imports only point down", "tracker/errors.py", "import tracker.core.ids"),
    ("Imports only point down", "tracker/lounge.py", "# a room that nobody gave a place"),
    ("Workers import no other door", "workers/app.py", "import tracker.api"),
    ("Nothing imports the workers", "tracker/services/forms.py", "import workers.app"),
    ("The core is pure", "tracker/core/schedule.py", "import pydantic"),
    ("The client knows", "tracker/client.py", "import tracker.settings"),
    ("The client knows", "tracker/client.py", "import orjson"),
    ("SQL lives in the store", "tracker/services/keys.py", "import sqlalchemy"),
    ("Only the net room", "tracker/couriers/webhook.py", "import requests"),
    ("Celery lives in", "tracker/services/polling.py", "import celery"),
    ("FastAPI lives in", "tracker/services/health.py", "import fastapi"),
]


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-c",
        "import sys; from importlinter.cli import lint_imports_command as c; sys.exit(c())",
    ]
    # The copy comes first on the path, before any installed or editable tracker.
    environment = {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "200"}
    return subprocess.run(
        [*command, "--no-cache", "--no-logo"],
        cwd=root,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("tracker", "workers"):
        shutil.copytree(
            ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "static", "media")
        )
    shutil.copy(ROOT / ".importlinter", tmp_path)
    return tmp_path


def test_the_contracts_hold(tree: Path) -> None:
    found = lint(tree)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(("contract", "file", "line"), FORBIDDEN)
def test_each_contract_notices_when_it_is_broken(tree: Path, contract: str, file: str, line: str) -> None:
    with (tree / file).open("a") as source:
        source.write(f"\n{line}\n")
    found = lint(tree)
    broken = [said for said in found.stdout.splitlines() if "BROKEN" in said]
    assert found.returncode == 1
    assert any(said.startswith(contract) for said in broken), found.stdout + found.stderr


def test_every_contract_is_broken_here_once() -> None:
    names = [
        line.partition("=")[2].strip()
        for line in (ROOT / ".importlinter").read_text().splitlines()
        if line.startswith("name =")
    ]
    assert [name for name in names if not any(name.startswith(contract) for contract, _, _ in FORBIDDEN)] == []
