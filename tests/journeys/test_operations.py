"""OPERATIONS.md says what is true: its commands are run against a real `tracker up`, and what it restores works elsewhere."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from .conftest import until
from .newcomer import ROOT, Newcomer, blocks

PAGE = (ROOT / "docs" / "OPERATIONS.md").read_text()
NAMED = set(re.findall(r"`(tracker [^`]+)`", PAGE))
NOT_HERE = {
    "tracker ...": "a pattern",
    "tracker up": "the fixture runs it",
    "tracker backup": "the block under it runs it; here it would leave a file",
    "tracker migrate --to -1": "tests/cli/test_cli_door.py",
}


@dataclass
class Kept:
    """What was in the first installation."""

    newcomer: Newcomer
    generation: str
    endpoint: str


def registered(newcomer: Newcomer) -> str:
    """A generation that its provider works on."""
    url = newcomer.here("http://127.0.0.1:8787/luma/generations")
    headers = {"Authorization": "Bearer demo", "Content-Type": "application/json"}
    with urllib.request.urlopen(
        urllib.request.Request(url, b'{"user_prompt": "a boat"}', headers), timeout=10
    ) as answer:
        task = json.load(answer)["id"]
    made = json.loads(newcomer.tracker("register", "luma", task, "--json"))
    return str(made["results"][0]["generation"]["id"])


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """A running tracker with a generation and an endpoint."""
    newcomer = Newcomer(tmp_path_factory.mktemp("operator"))
    with newcomer.up():
        endpoint = json.loads(newcomer.tracker("endpoints", "create", "http://127.0.0.1:9/hook", "--json"))["id"]
        yield Kept(newcomer, registered(newcomer), endpoint)
    newcomer.clear()


def test_what_is_to_be_run_runs(first: Kept) -> None:
    code = "\n".join(["set -eu", *blocks(PAGE, "sh")])
    said = first.newcomer.run("sh", "-c", code=code, ID=first.generation)
    assert "nothing is wrong" in said
    assert "polls go on" in said
    assert (first.newcomer.folder / "tracker.tar").stat().st_size > 10_000


def test_every_command_in_the_text_runs(first: Kept) -> None:
    assert NOT_HERE.keys() <= NAMED
    for command in sorted(NAMED - NOT_HERE.keys()):
        words = shlex.split(command.replace("NAME", "simulator").replace("ID", first.endpoint))
        first.newcomer.tracker(*words[1:])
    first.newcomer.tracker("resume", "polls")


@pytest.mark.parametrize("command", blocks(PAGE, "sh", "follow")[0].splitlines())
def test_what_goes_on_until_it_is_told_to_end(first: Kept, command: str) -> None:
    here = first.newcomer
    told = here.folder / "told"
    with told.open("wb") as out:
        process = subprocess.Popen(
            shlex.split(command, comments=True), cwd=here.folder, env=here.environment, stdout=out, stderr=out
        )
    try:
        until(lambda: registered(here) and "gen_" in told.read_text(), 60, told.read_text)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0, told.read_text()
    finally:
        process.kill()


def test_what_was_backed_up_is_restored_elsewhere(first: Kept, tmp_path_factory: pytest.TempPathFactory) -> None:
    here, second = first.newcomer, Newcomer(tmp_path_factory.mktemp("elsewhere"))
    here.tracker("backup", "-o", str(second.folder / "tracker.tar"))
    [block] = blocks(PAGE, "sh", "run while it is stopped")
    second.run("sh", "-c", code=f"set -eu\n{block}")
    with second.up():
        assert first.generation in second.tracker("list")
        assert second.tracker("endpoints", "secret", first.endpoint) == here.tracker(
            "endpoints", "secret", first.endpoint
        )
        assert "nothing is wrong" in second.tracker("doctor")
    second.clear()


def test_the_services_that_it_names_are_in_the_compose_file() -> None:
    there = set(re.findall(r"^  ([\w-]+):$", (ROOT / "docker-compose.yml").read_text(), re.MULTILINE))
    stopped = set(re.findall(r"docker compose stop (.+)", PAGE)[0].split())
    assert stopped == there - {"postgres", "redis", "migrate", "flower", "home"}
