"""The documented receivers, each run as its reader would run it: what we sign they take once, and what is forged, altered or old they refuse."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tracker.api.artifacts import routes
from tracker.core import signing

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "receivers"
SECRET = signing.new_secret()
GOLDEN = ROOT / "tests" / "core" / "golden"
NAMES = ["receiver.py", "receiver.mjs", "receiver.go"]


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[str]]:
    """How a receiver is started; skips where its toolchain is not installed."""
    built = tmp_path_factory.mktemp("built") / "receiver"

    def of(name: str) -> list[str]:
        source = str(FOLDER / name)
        tool = {"py": sys.executable, "mjs": shutil.which("node"), "go": shutil.which("go")}[name.partition(".")[2]]
        if tool is None:
            pytest.skip(f"the toolchain of {name} is not installed here")
        if not name.endswith(".go"):
            return [tool, source]
        if not built.exists():  # and not `go run`, whose child outlives it
            subprocess.run([tool, "build", "-o", str(built), source], check=True, timeout=300)
        return [str(built)]

    return of


class Links(ThreadingHTTPServer):
    """Where a receiver asks for links; what it was asked, and with which key."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Asked)
        self.asked: list[tuple[str, str]] = []
        self.down = False
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Asked(BaseHTTPRequestHandler):
    server: Links

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked.append((self.path, self.headers["authorization"]))
        self.send_response(503 if self.server.down else 200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        if not self.server.down:
            self.wfile.write(json.dumps({"url": f"https://files.example{self.path}?signed"}).encode())

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def links() -> Iterator[Links]:
    server = Links()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


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


def started(command: list[str], **variables: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PORT": "0", "PYTHONPATH": str(ROOT), **variables}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(params=NAMES)
def receiver(request: pytest.FixtureRequest, command: Callable[[str], list[str]], links: Links) -> Iterator[Running]:
    process = started(command(request.param), WEBHOOK_SECRET=SECRET, TRACKER_URL=links.url, TRACKER_KEY="trk_key")
    assert process.stdout is not None
    yield Running(int(process.stdout.readline().split()[-1]), process)
    process.terminate()
    process.communicate(timeout=10)


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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("secret", ["", "whsec_"])
def test_a_receiver_without_a_secret_does_not_start(
    command: Callable[[str], list[str]], name: str, secret: str
) -> None:
    """An empty key signs as well as any: whoever starts with one would trust everybody."""
    process = started(command(name), WEBHOOK_SECRET=secret)
    said, wrong = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said == ""
    assert "WEBHOOK_SECRET is not set" in wrong


def copy(index: int, sequence: int) -> bytes:
    event = json.loads((GOLDEN / "artifact.stored.json").read_bytes())
    event["data"]["sequence"] = sequence
    event["data"]["artifact"] |= {"kind": "image", "index": index}
    return json.dumps(event).encode()


def test_a_stored_copy_gets_its_own_link_whatever_order_events_come_in(receiver: Running, links: Links) -> None:
    for sequence, index in ((6, 2), (5, 1)):
        body = copy(index, sequence)
        assert receiver.post(signed(body, f"evt_{index}"), body) == 204
        path = f"/v1/generations/gen_01jgg9wpg0e008000000000001/artifacts/image/{index}/link"
        assert links.asked[-1] == (path, "Bearer trk_key")
        assert receiver.line() == f"link https://files.example{path}?signed"
        assert receiver.line().startswith("event artifact.stored gen_")
    assert "/v1/generations/{generation_id}/artifacts/{kind}/{index}/link" in {route.path for route in routes.routes}  # type: ignore[attr-defined]


def test_what_could_not_be_done_is_not_answered_and_is_welcome_when_it_comes_again(
    receiver: Running, links: Links
) -> None:
    body, links.down = copy(0, 6), True
    assert receiver.post(signed(body, "evt_1"), body) == 500
    assert receiver.line().startswith("trouble")
    links.down = False
    assert receiver.post(signed(body, "evt_1"), body) == 204
    assert receiver.line().startswith("link ")
    assert receiver.line().startswith("event ")
    assert receiver.post(signed(body, "evt_1"), body) == 204
    assert len(links.asked) == 2


def test_the_same_event_twice_at_once_is_done_once(receiver: Running, links: Links) -> None:
    body = copy(0, 6)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: receiver.post(signed(body, "evt_1"), body), range(8)))
    assert answers == [204] * 8
    assert len(links.asked) == 1
