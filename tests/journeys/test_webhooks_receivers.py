"""The documented receivers, each run as its reader would run it: what we sign they take once, and what is forged, altered or old they refuse."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tracker.core import signing

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "receivers"
SECRET = signing.new_secret()
GOLDEN = ROOT / "tests" / "core" / "golden"
COMMANDS = {
    "receiver.py": [sys.executable],
    "receiver.mjs": [shutil.which("node") or ""],
    "receiver.go": [shutil.which("go") or "", "run"],
}


@dataclass
class Running:
    port: int
    process: subprocess.Popen[str]

    def post(self, headers: dict[str, str], body: bytes) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        connection.request("POST", "/", body, {"content-type": "application/json", **headers})
        status = connection.getresponse().status
        connection.close()
        return status

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@pytest.fixture(params=COMMANDS)
def receiver(request: pytest.FixtureRequest) -> Iterator[Running]:
    command = COMMANDS[request.param]
    if not command[0]:
        pytest.skip(f"the toolchain of {request.param} is not installed here")
    environment = {**os.environ, "WEBHOOK_SECRET": SECRET, "PORT": "0", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*command, str(FOLDER / request.param)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    yield Running(int(process.stdout.readline().split()[-1]), process)
    process.terminate()
    process.wait(10)
    process.stdout.close()


def signed(body: bytes, message_id: str, *, secrets=(SECRET,), at: float | None = None) -> dict[str, str]:
    return signing.headers(secrets, message_id, int(at or time.time()), body)


def test_a_documented_receiver_takes_what_we_sign_once_and_refuses_the_rest(receiver: Running) -> None:
    body = (GOLDEN / "generation.completed.json").read_bytes()
    assert receiver.post(signed(body, "evt_1"), body) == 204
    assert receiver.line() == "event generation.completed gen_01jgg9wpg0e008000000000001"
    assert receiver.post(signed(body, "evt_1"), body) == 204, "a repetition is welcome, and changes nothing"
    assert receiver.post(signed(body, "evt_1"), body + b" ") == 400
    assert receiver.line().startswith("refused")
    assert receiver.post(signed(body, "evt_2", at=time.time() - 3600), body) == 400
    assert receiver.line().startswith("refused")
    assert receiver.post(signed(body, "evt_2", secrets=[signing.new_secret()]), body) == 400
    assert receiver.line().startswith("refused")
    rotating = signed(body, "evt_3", secrets=[signing.new_secret(), SECRET])
    assert receiver.post(rotating, body) == 204, "either signature of a rotation will do"
    assert receiver.line().startswith("event")
    older = (GOLDEN / "generation.queued.json").read_bytes()
    assert receiver.post(signed(older, "evt_4"), older) == 204
    assert receiver.line() == "stale generation.queued"
