"""A whole installation in one process under a clock that moves: real PostgreSQL, Valkey, simulator and receiver; the test is the worker."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener
from uuid import UUID

import pytest
from sqlalchemy import text
from standardwebhooks.webhooks import Webhook

from tracker import wiring
from tracker.core.generation import Generation
from tracker.services.forms import CredentialForm, RegistrationForm
from tracker.store.batches import Bundle

Batches = list[tuple[UUID, list[tuple[UUID, int]]]]

ROOT = Path(__file__).parents[2]
_direct = build_opener(ProxyHandler({}))


def bundle(claims: Sequence[tuple[UUID, int]]) -> Bundle:
    """These ids and fences as a message carries them."""
    ids, fences = zip(*claims, strict=True)
    return Bundle(*("{" + ",".join(map(str, column)) + "}" for column in (ids, fences)))


def until(condition: Callable[[], Any], what: str, seconds: float = 30.0) -> Any:
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := condition():
            return found
        threading.Event().wait(0.01)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass
class Relay:
    url: str

    def call(self, path: str, content: Any = None) -> Any:
        body = None if content is None else json.dumps(content).encode()
        with _direct.open(Request(f"{self.url}/simulator/{path}", body), timeout=10) as answer:
            return json.load(answer)

    def create(self, **wish: Any) -> str:
        return str(self.call("generations", wish)["id"])

    def asked(self, task: str) -> list[float]:
        return list(self.call(f"generations/{task}")["queries"])

    def answers(self, task: str, body: str, **reply: Any) -> None:
        """Say exactly this about a task from now on."""
        self.call("answers", {"path": f"/luma/generations/{task}", "body": body, **reply})

    def says(self, task: str, state: str, **fields: Any) -> None:
        self.answers(task, json.dumps({"id": task, "state": state, **fields}))

    def completes(self, task: str) -> None:
        self.says(task, "completed", video={"url": f"{self.url}/files/{task}/video.mp4", "download_url": ""})


@pytest.fixture(scope="session")
def simulator() -> Iterator[Relay]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tracker.simulator", "--port", "0"], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line.startswith("simulator ready at "), line
    yield Relay(line.split()[3])
    child.terminate()
    child.wait(10)
    child.stdout.close()


@pytest.fixture
def relay(simulator: Relay) -> Relay:
    simulator.call("reset", {})
    return simulator


@dataclass
class Got:
    headers: dict[str, str]
    body: bytes
    path: str

    @property
    def event(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


@dataclass
class Receiver:
    """Keeps what it gets, and answers what the test wants."""

    url: str = ""
    status: int = 204
    headers: dict[str, str] = field(default_factory=dict)
    got: list[Got] = field(default_factory=list)
    gates: dict[str, threading.Event] = field(default_factory=dict)

    def types(self) -> list[str]:
        return [got.event["type"] for got in self.got]

    def hang(self, path: str) -> threading.Event:
        """Requests to this path are answered once the event is set."""
        return self.gates.setdefault(path, threading.Event())


def signed_by(got: Got, secret: str) -> bool:
    """Whether the independent library makes one of the signatures that came; its own check would compare with today's clock."""
    at = datetime.fromtimestamp(int(got.headers["webhook-timestamp"]), UTC)
    expected = Webhook(secret).sign(got.headers["webhook-id"], at, got.body.decode())
    return expected in got.headers["webhook-signature"].split(" ")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    kept = Receiver()

    class Incoming(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            kept.got.append(Got({k.lower(): v for k, v in self.headers.items()}, body, self.path))
            if gate := kept.gates.get(self.path):
                gate.wait(30)
            self.send_response(kept.status)
            for name, value in kept.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Incoming)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    kept.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield kept
    for gate in kept.gates.values():
        gate.set()
    server.shutdown()
    server.server_close()
    thread.join()


@dataclass
class Place:
    """An installation whose default Luma credential is the simulator. The test moves its clock and does its workers' work."""

    services: wiring.Services
    relay: Relay
    project: UUID
    broker: Any

    def register(self, task: str, **fields: Any) -> Generation:
        form = RegistrationForm(task_id=task, **{"provider": "luma", **fields})
        return self.services.registration.register(self.project, form).generation

    def get(self, g: Generation) -> Generation:
        return self.services.generations.get(self.project, g.id)

    def ahead(self, seconds: float) -> None:
        """Move every clock: ours and the provider's."""
        self.services.database.ahead += timedelta(seconds=seconds)
        self.relay.call("clock", {"advance": seconds})

    def now(self) -> datetime:
        return self.scalar("SELECT clock_timestamp()") + self.services.database.ahead

    def scalar(self, query: str, **values: Any) -> Any:
        with self.services.database.transaction() as tx:
            return tx.execute(text(query), values).scalar_one_or_none()

    def rows(self, query: str, **values: Any) -> list[Any]:
        with self.services.database.transaction() as tx:
            return list(tx.execute(text(query), values).mappings())

    def change(self, query: str, **values: Any) -> int:
        with self.services.database.transaction() as tx:
            return int(tx.execute(text(query), values).rowcount)

    def messages(self) -> Batches:
        """Batches that were published, taken from the broker as a worker takes them."""
        found: Batches = []
        for message in self.taken("poll"):
            batch, ids, fences = message.payload[0]
            found.append((UUID(batch), Bundle(ids, fences).pairs))
        return found

    def taken(self, name: str) -> Iterator[Any]:
        """The messages that wait in a queue, whatever kind the broker makes of it."""
        queue = self.services.bell._app.amqp.queues[name](self.broker.default_channel)
        queue.declare()
        while (message := queue.get(accept=["json"])) is not None:
            message.ack()
            yield message

    def claim(self) -> Batches:
        return self.messages() if self.services.polling.dispatch() else []

    def ask(self, claims: Batches) -> int:
        return sum(self.services.polling.ask(batch, bundle(polls)) for batch, polls in claims)

    def poll(self) -> int:
        """Ask about what is due now, as far as batches may be outstanding; returns how many were asked."""
        return self.ask(self.claim())

    def run(self, seconds: float, stop: Callable[[], Any] = lambda: False) -> int:
        """Live through so many seconds, from one due poll to the next; returns how many polls were made."""
        ends, asked = self.now() + timedelta(seconds=seconds), 0
        while not stop():
            due_at = self.scalar("SELECT min(due_at) FROM polls")
            if due_at is None or due_at > ends:
                break
            self.ahead(max(0.0, (due_at - self.now()).total_seconds() + 0.002))
            made = self.poll()
            if not made:  # only a paused or blocked account is due: look again when it is probed
                self.ahead(10.0)
            asked += made
        self.ahead(max(0.0, (ends - self.now()).total_seconds()) if not stop() else 0.0)
        return asked

    def send(self) -> int:
        return self.services.delivery.send_due()

    def types(self, g: Generation) -> list[str]:
        rows = self.rows("SELECT type FROM events WHERE generation_id = :id ORDER BY sequence", id=g.id)
        return [row["type"].removeprefix("generation.") for row in rows]


@pytest.fixture
def place(services: wiring.Services, relay: Relay) -> Iterator[Place]:
    project = services.keys.project().project_id
    form = CredentialForm(
        providers=["luma"], base_url=relay.url, api_key="key", requests_per_second=50_000, concurrency=10_000
    )
    services.credentials.put(project, "default", form)
    with services.bell._app.connection_for_read() as broker:
        yield Place(services, relay, project, broker)
