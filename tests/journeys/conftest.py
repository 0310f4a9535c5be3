"""A whole installation for a test: real Celery workers and beat, the simulator, and a webhook receiver that verifies independently."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tracker import wiring
from tracker.embedded.child import _end_with_parent
from tracker.embedded.ports import free_port, release
from tracker.services.forms import CredentialForm
from tracker.settings import Settings

ROOT = Path(__file__).parents[2]
QUEUES = {"default": 1, "poll": 2, "webhook": 2, "download": 2}


def until(condition: Callable[[], Any], seconds: float, what: str | Callable[[], str], pause: float = 0.05) -> Any:
    """Wait for a condition, looking often; fails with `what` after `seconds`."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := condition():
            return found
        time.sleep(pause)
    raise AssertionError(f"not within {seconds} s: {what if isinstance(what, str) else what()}")


@dataclass
class Receiver:
    """Gets webhooks, verifies each with the independent library, and keeps what it got in order of arrival."""

    secret: str = ""
    got: list[dict[str, Any]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    url: str = ""
    delay: float = 0.0
    """Seconds before each answer."""

    def take(self, headers: dict[str, str], body: bytes) -> int:
        threading.Event().wait(self.delay)
        try:
            event = Webhook(self.secret).verify(body, headers)
        except Exception as wrong:  # noqa: BLE001 - whatever the library says is what the test shows
            self.wrong.append(repr(wrong))
            return 400
        self.got.append(event)
        self.ids.append(headers["webhook-id"])
        return 204

    def of(self, type_: str) -> list[dict[str, Any]]:
        return [event for event in self.got if event["type"] == type_]


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A sender that is killed in the middle is no news here."""


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens."""
    kept = Receiver()

    class Incoming(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(kept.take({k.lower(): v for k, v in self.headers.items()}, body))
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = _Server(("127.0.0.1", 0), Incoming)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    kept.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
    yield kept
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as kept:
        yield kept


class Simulator:
    """The relay simulator with its control calls."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "tracker.simulator", "--port", str(port)]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            preexec_fn=_end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - it takes no lock
        )
        assert self.process.stdout is not None
        assert b"ready" in self.process.stdout.readline()

    def call(self, path: str, body: Any = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/simulator/{path}", content), timeout=10
        ) as answer:
            return json.load(answer)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def simulating() -> Iterator[Simulator]:
    """A simulator that runs."""
    port = free_port(18787)
    running = Simulator(port)
    yield running
    running.stop()
    release(port)


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with simulating() as running:
        yield running


class Workers:
    """Celery workers, one per queue, and beat, as real processes in groups of their own."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self.settings, self.logs = settings, logs
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("TRACKER_")},
            "TRACKER_HOME": str(settings.home),
            "TRACKER_DATABASE_URL": settings.required("database_url"),
            "TRACKER_REDIS_URL": settings.required("redis_url"),
            "TRACKER_BROKER_URL": settings.required("broker_url"),
            "TRACKER_SECRET_KEYS": settings.required("secret_keys"),
            "TRACKER_BOOTSTRAP_API_KEY": settings.required("bootstrap_api_key"),
            "TRACKER_API_PORT": str(settings.api_port),
            "TRACKER_FLOWER_AUTH": "flower:flower",
            "PYTHONPATH": str(ROOT),
        }

    def start(self, name: str) -> None:
        environment = {**self.environment, "BEAT_PULSE": str(self.pulse(name))}
        with (self.logs / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                self._command(name), stdout=log, stderr=log, env=environment, cwd=self.logs, start_new_session=True,
                preexec_fn=_end_with_parent(signal.SIGKILL),  # noqa: PLW1509 - it takes no lock
            )  # fmt: skip

    def pulse(self, beat: str) -> Path:
        """What a beat touches at each ring."""
        return self.logs / f"{beat}.pulse"

    def _command(self, name: str) -> list[str]:
        celery = [sys.executable, "-m", "celery", "-A", "workers.app"]
        if name == "api":
            return [sys.executable, "-m", "tracker.api"]
        if name.startswith("beat"):
            return [*celery, "beat", "-s", str(self.logs / f"{name}-schedule"), "--pidfile="]
        options = ["-c", str(QUEUES[name]), "--without-gossip", "--without-mingle"]
        return [*celery, "worker", "-Q", name, "-n", f"{name}-{os.getpid()}@%h", *options]

    def ready(self) -> None:
        """Wait until each worker takes messages."""
        for name in QUEUES.keys() & self.running.keys():
            until(lambda log=self.logs / f"{name}.log": "ready." in log.read_text(), 30, f"{name} is ready")

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the process with all its children."""
        os.killpg(self.running[name].pid, number)

    def kill(self, name: str) -> None:
        """SIGKILL to the process with all its children."""
        process = self.running.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(10)

    def ended(self) -> list[str]:
        """Those that ended by themselves, which nobody asked of them."""
        return [name for name, process in self.running.items() if process.poll() is not None]

    def stop(self) -> None:
        """The test is over: nobody waits for a drain, which has tests of its own."""
        for process in self.running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        for process in self.running.values():
            process.wait(10)

    def said(self) -> str:
        return "\n".join(f"== {log.name}\n{log.read_text()[-1500:]}" for log in sorted(self.logs.glob("*.log")))


@pytest.fixture
def workers(
    settings: Settings, services: wiring.Services, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Workers]:
    logs = tmp_path / "logs"
    logs.mkdir()
    started = Workers(settings, logs)
    try:
        for name in (*QUEUES, "beat"):
            started.start(name)
        yield started
    finally:
        started.stop()
        sys.stdout.write(started.said())


@pytest.fixture
def account(services: wiring.Services, simulator: Simulator, receiver: Receiver) -> Any:
    """The project, whose default Luma credential is the simulator and whose secret the receiver knows."""
    project_id = services.keys.project().project_id
    form = CredentialForm(
        providers=["luma"], base_url=simulator.url, api_key="key", requests_per_second=500, concurrency=200
    )
    services.credentials.put(project_id, "default", form)
    receiver.secret = services.endpoints.project_secret(project_id)
    return project_id
