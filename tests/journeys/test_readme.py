"""The README says what is true: its walk-through is run against a real `tracker up`, and its lists are compared with the code."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tracker.core import signing
from tracker.settings import Settings

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MARKED = re.compile(r"<!-- run -->\n```(?P<language>\w+)\n(?P<code>.*?)```", re.DOTALL)


def blocks(language: str) -> list[str]:
    return [found["code"] for found in MARKED.finditer(README) if found["language"] == language]


@dataclass
class Running:
    """A tracker started as a person does, in an empty folder."""

    folder: Path
    environment: dict[str, str]

    def here(self, code: str) -> str:
        """The code with the addresses that this one has: ports move when the standard ones are taken."""
        ports = json.loads((self.folder / ".tracker" / "state.json").read_text())["ports"]
        return code.replace("127.0.0.1:8000", f"127.0.0.1:{ports['api']}").replace(
            "127.0.0.1:8787", f"127.0.0.1:{ports['simulator']}"
        )

    def run(self, *command: str, code: str, **variables: str) -> str:
        done = subprocess.run(
            [*command, self.here(code)], cwd=self.folder, env=self.environment | variables, capture_output=True, text=True, timeout=120,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("newcomer")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("TRACKER_", "PG"))}
    environment |= {
        "PYTHONPATH": str(ROOT),
        "NO_PROXY": "127.0.0.1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    log = folder / "up.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tracker.cli", "up"], cwd=folder, env=environment, stdout=out, stderr=out
        )
    deadline = time.monotonic() + 90
    while "The tracker is up" not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    yield Running(folder, environment)
    process.send_signal(signal.SIGTERM)
    assert process.wait(40) == 0, log.read_text()
    subprocess.run(
        [sys.executable, "-m", "tracker.embedded", "fresh"],
        cwd=folder,
        env=environment,
        check=True,
        capture_output=True,
    )


@pytest.fixture(scope="module")
def walked(running: Running) -> dict[str, str]:
    """What the shell blocks print, run one after the other in one shell as a reader does."""
    script = "\n".join(["set -eu", *blocks("sh"), 'echo "TASK=$TASK"'])
    said = running.run("sh", "-c", code=script)
    return {"said": said, "task": said.rpartition("TASK=")[2].strip()}


def test_the_walk_through_ends_with_the_video(running: Running, walked: dict[str, str]) -> None:
    assert (running.folder / "boat.mp4").read_bytes()[4:8] == b"ftyp"
    states = re.findall(r'"to": "(\w+)"', walked["said"])
    assert states[0] == "registered"
    assert states[-1] == "completed"


def test_the_python_example_gets_the_same_video(running: Running, walked: dict[str, str]) -> None:
    example, _ = blocks("python")
    said = running.run(sys.executable, "-c", code=example, TASK=walked["task"])
    assert said.startswith("completed http")
    assert (running.folder / "again.mp4").read_bytes() == (running.folder / "boat.mp4").read_bytes()


def test_the_commands_named_beside_it_work(running: Running, walked: dict[str, str]) -> None:
    found = re.search(r"gen_\w{26}", walked["said"])
    assert found
    for arguments in (["list"], ["show", found[0], "--why"], ["doctor"], ["clocks"]):
        done = subprocess.run(
            [sys.executable, "-m", "tracker.cli", *arguments], cwd=running.folder, env=running.environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.strip()


def test_the_webhook_lines_take_what_we_sign_and_refuse_what_was_altered() -> None:
    _, example = blocks("python")
    names: dict[str, Any] = {}
    exec(example, names)  # noqa: S102 - the README's own code
    secret, body = signing.new_secret(), b'{"type":"generation.completed","timestamp":"now","data":{"id":"gen_1"}}'
    headers = signing.headers([secret], "evt_1", int(time.time()), body)
    assert names["receive"](secret, headers, body) == (204, "generation.completed", "gen_1")
    assert names["receive"](secret, headers, body.replace(b"gen_1", b"gen_2"))[0] == 400


def test_the_diagram_is_the_one_that_the_command_prints() -> None:
    drawn = re.search(r"<!-- states -->\n```mermaid\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-m", "tracker.cli", "states", "--mermaid"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert drawn
    assert drawn[1] == done.stdout


def test_the_table_of_variables_is_complete() -> None:
    named = set(re.findall(r"`(TRACKER_\w+)`", README.partition("## Configuration")[2].partition("## How")[0]))
    fields = {f"TRACKER_{name.upper()}" for name in Settings.model_fields if name not in {"accounts", "given"}}
    assert named == fields | {"TRACKER_LUMA_BASE_URL", "TRACKER_LUMA_API_KEY"}


def test_every_place_that_it_names_is_there() -> None:
    places = set(re.findall(r"`((?:tracker|workers|docs)/[\w/]*)`", README)) | set(
        re.findall(r"\]\((?!http)([^)]+)\)", README)
    )
    assert places
    assert [place for place in places if not (ROOT / place).exists()] == []
