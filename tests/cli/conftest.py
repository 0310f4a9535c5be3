"""The command line as a person runs it, over the test servers; mostly within the test's process, because a real one starts slowly."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from tracker import wiring
from tracker.cli.main import main
from tracker.embedded.environment import complete
from tracker.services.forms import CredentialForm
from tracker.settings import Settings

ROOT = Path(__file__).parents[2]


@contextmanager
def as_a_process(environment: dict[str, str], folder: Path, stdin: str) -> Iterator[None]:
    """What a process of its own would have to itself; it would also take a second for its imports."""
    before, root = Path.cwd(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    os.chdir(folder)
    try:
        with patch.dict(os.environ, environment, clear=True), patch.object(sys, "stdin", io.StringIO(stdin)):
            yield
    finally:
        os.chdir(before)
        logging.captureWarnings(capture=False)
        root.handlers, root.level = handlers, level


@dataclass
class Cli:
    """Runs `tracker` with an environment of its own, in a folder of its own."""

    environment: dict[str, str]
    folder: Path

    def __call__(
        self, *arguments: str, code: int = 0, stdin: str = "", variables: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        out, wrong = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with (
            as_a_process(self.environment | (variables or {}), self.folder, stdin),
            redirect_stdout(out),
            redirect_stderr(wrong),
            patch.object(sys, "argv", ["tracker", *arguments]),
            pytest.raises(SystemExit) as ended,
        ):
            main()
        said = [stream.buffer.getvalue().decode() for stream in (out, wrong)]  # type: ignore[attr-defined]
        assert ended.value.code == code, f"{arguments} ended with {ended.value.code}\n{said[0]}\n{said[1]}"
        assert "Traceback" not in said[0] + said[1]
        return subprocess.CompletedProcess(arguments, code, *said)

    def alone(self, *arguments: str, code: int = 0, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """The same in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", "tracker.cli", *arguments], cwd=self.folder, env=self.environment, input=stdin, capture_output=True,
            text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{arguments} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def json(self, *arguments: str, code: int = 0, stdin: str = "") -> Any:
        return json.loads(self(*arguments, "--json", code=code, stdin=stdin).stdout)

    def starts(self, *arguments: str) -> subprocess.Popen[str]:
        """One that goes on until it is told to end."""
        return subprocess.Popen(
            [sys.executable, "-m", "tracker.cli", *arguments], cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip


@pytest.fixture
def bare(tmp_path: Path) -> Cli:
    """Nothing is configured, and nothing runs."""
    base = {name: value for name, value in os.environ.items() if not name.startswith(("TRACKER_", "PG"))}
    (tmp_path / "desk").mkdir()
    return Cli(base | {"PYTHONPATH": str(ROOT), "TRACKER_HOME": str(tmp_path / "nobody")}, tmp_path / "desk")


@pytest.fixture
def cli(bare: Cli, settings: Settings, services: wiring.Services) -> Cli:
    """Configured for the test servers, with a default credential for Luma."""
    project_id = services.keys.project().project_id
    form = CredentialForm(providers=["luma"], base_url="http://127.0.0.1:9", api_key="sk-provider-secret")
    services.credentials.put(project_id, "default", form)
    plain = {name: value for name, value in bare.environment.items() if not name.startswith("TRACKER_")}
    return Cli(complete(settings, plain, own_database=False, simulator_url=None), bare.folder)


@pytest.fixture
def registered(cli: Cli) -> Callable[..., dict[str, Any]]:
    """Registers one task and gives the generation."""

    def register(task_id: str = "task-1", *options: str) -> dict[str, Any]:
        found: dict[str, Any] = cli.json("register", "luma", task_id, *options)["results"][0]["generation"]
        return found

    return register
