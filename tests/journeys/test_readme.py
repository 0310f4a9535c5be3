"""The README says what is true: its walk-through is run against a real `tracker up`, and its lists are compared with the code."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tracker.core import signing
from tracker.settings import Settings

from .newcomer import ROOT, Newcomer, blocks

README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Newcomer]:
    newcomer = Newcomer(tmp_path_factory.mktemp("newcomer"))
    with newcomer.up():
        yield newcomer
    newcomer.clear()


@pytest.fixture(scope="module")
def walked(running: Newcomer) -> dict[str, str]:
    """What the shell blocks print, run one after the other in one shell as a reader does."""
    script = "\n".join(["set -eu", *blocks(README, "sh"), 'echo "TASK=$TASK"'])
    said = running.run("sh", "-c", code=running.here(script))
    return {"said": said, "task": said.rpartition("TASK=")[2].strip()}


def test_the_walk_through_ends_with_the_video(running: Newcomer, walked: dict[str, str]) -> None:
    assert (running.folder / "boat.mp4").read_bytes()[4:8] == b"ftyp"
    states = re.findall(r'"to": "(\w+)"', walked["said"])
    assert states[0] == "registered"
    assert states[-1] == "completed"


def test_the_python_example_gets_the_same_video(running: Newcomer, walked: dict[str, str]) -> None:
    example, _ = blocks(README, "python")
    said = running.run(sys.executable, "-c", code=running.here(example), TASK=walked["task"])
    assert said.startswith("completed http")
    assert (running.folder / "again.mp4").read_bytes() == (running.folder / "boat.mp4").read_bytes()


def test_the_commands_named_beside_it_work(running: Newcomer, walked: dict[str, str]) -> None:
    found = re.search(r"gen_\w{26}", walked["said"])
    assert found
    for arguments in (["list"], ["show", found[0], "--why"], ["doctor"], ["clocks"]):
        assert running.tracker(*arguments).strip()


def test_the_webhook_lines_take_what_we_sign_and_refuse_what_was_altered() -> None:
    _, example = blocks(README, "python")
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
