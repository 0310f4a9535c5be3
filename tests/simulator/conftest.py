"""One simulator process for all tests of this room, reset before each; every request goes over a real socket."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

ROOT = Path(__file__).parents[2]


@dataclass
class Relay:
    """A running simulator, as its users see it."""

    url: str
    child: subprocess.Popen[str]
    session: requests.Session

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def get(self, path: str, **options: Any) -> requests.Response:
        options.setdefault("headers", {}).setdefault("Authorization", "Bearer sk-test")
        options.setdefault("timeout", 10)
        return self.session.get(path if path.startswith("http") else self.url + path, allow_redirects=False, **options)

    def post(self, path: str, content: object, **options: Any) -> requests.Response:
        options.setdefault("headers", {"Authorization": "Bearer sk-test"})
        return self.session.post(self.url + path, data=json.dumps(content), timeout=10, **options)

    def create(self, **wish: Any) -> str:
        answer = self.post("/simulator/generations", wish)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def query(self, task_id: str, **options: Any) -> requests.Response:
        return self.get(f"/luma/generations/{task_id}", **options)

    def advance(self, seconds: float) -> None:
        self.post("/simulator/clock", {"advance": seconds})

    def stats(self) -> dict[str, Any]:
        return dict(self.get("/simulator/stats").json())

    def eventually(self, name: str, expected: object) -> None:
        """Wait until a number of the stats is as expected; what the server counts may come a moment after what the client sees."""
        deadline = time.monotonic() + 5
        while self.stats()[name] != expected:
            assert time.monotonic() < deadline, f"{name} is {self.stats()[name]}, not {expected}"

    def raw(
        self, path: str, *, method: str = "GET", seconds: float = 5.0, enough: int | None = None
    ) -> tuple[bytes, str]:
        """The bytes of one answer and how they ended: `end`, `reset` or `open` (nothing more came in time, or `enough` did)."""
        found = b""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as connection:
            connection.sendall(
                f"{method} {path} HTTP/1.1\r\nHost: relay\r\nAuthorization: Bearer sk-test\r\n\r\n".encode()
            )
            try:
                while enough is None or len(found) < enough:
                    piece = connection.recv(65_536)
                    if not piece:
                        return found, "end"
                    found += piece
            except ConnectionResetError:
                return found, "reset"
            except TimeoutError:
                return found, "open"
        return found, "open"


@contextmanager
def running(*options: str) -> Iterator[Relay]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tracker.simulator", "--port", "0", *options],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    try:
        line = child.stdout.readline()
        assert line.startswith("simulator ready at "), line
        with requests.Session() as session:
            session.trust_env = False
            yield Relay(line.split()[3], child, session)
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(10)
        child.stdout.close()


@pytest.fixture(scope="session")
def started() -> Iterator[Relay]:
    with running() as found:
        yield found


@pytest.fixture
def relay(started: Relay) -> Relay:
    started.post("/simulator/reset", {})
    return started


@pytest.fixture(scope="session")
def run_simulator() -> Any:
    return running
