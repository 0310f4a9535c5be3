"""The API on a real socket, over a real database, and what a test needs to make things happen behind it."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import psycopg
import pytest
import requests
import uvicorn
from cryptography.fernet import Fernet
from pydantic import BaseModel, SecretStr

from tracker import wiring
from tracker.api import schemas
from tracker.api.__main__ import Server
from tracker.api.app import create_app
from tracker.api.context import Context
from tracker.core import ids
from tracker.core.generation import Output, State
from tracker.core.lifecycle import Decision
from tracker.couriers.store import store_at
from tracker.services import steps
from tracker.services.forms import CredentialForm, KeyForm
from tracker.settings import Settings
from tracker.store import artifacts, db, generations, outbox, schedule
from tracker.wiring import Services

VIDEO = "https://files.example.com/video.mp4"


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """Wait for a condition, looking often; fails with `what` after `seconds`."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s: {what}")


@dataclass
class Api:
    """A client of the running API with one key, and the doors behind it."""

    url: str
    key: str
    services: Services
    settings: Settings
    context: Context
    session: requests.Session = field(default_factory=requests.Session)
    until = staticmethod(until)

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {self.key}", **options.pop("headers", {})}
        options.setdefault("timeout", 20)
        return self.session.request(
            method, self.url + path, headers={k: v for k, v in headers.items() if v is not None}, **options
        )

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.call("GET", path, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> requests.Response:
        return self.call("POST", path, json=json, **options)

    def shows(self, answer: requests.Response, model: type[BaseModel], status: int = 200) -> dict[str, Any]:
        """The JSON of a good answer, held against its description."""
        assert answer.status_code == status, answer.text
        model.model_validate(answer.json())
        fields: dict[str, Any] = answer.json()
        return fields

    def problem(self, answer: requests.Response, status: int, code: str, *fields: str) -> dict[str, Any]:
        """The problem+json that must have been answered, with exactly these wrong fields."""
        assert answer.status_code == status, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        told: dict[str, Any] = answer.json()
        assert told["status"] == status
        assert told["code"] == code, told
        assert told["type"] == f"urn:generation-tracker:problem:{code}"
        assert told["title"]
        assert told["detail"]
        assert told["request_id"] == answer.headers["x-request-id"]
        assert [error["field"] for error in told.get("errors", [])] == list(fields), told
        assert all(error["message"] and error["code"] for error in told.get("errors", []))
        return told

    def register(self, task_id: str = "task-1", **fields: Any) -> dict[str, Any]:
        """A registered generation."""
        answer = self.post("/v1/generations", {"provider": "luma", "task_id": task_id, **fields})
        return self.shows(answer, schemas.GenerationShown, 201)

    def with_key(self, *scopes: str, project: str = "default") -> Api:
        """The same API through another key."""
        caller = self.services.keys.project(project, make=True)
        _, token = self.services.keys.create(caller.project_id, KeyForm(scopes=list(scopes)))  # type: ignore[arg-type]
        if project != "default":
            form = CredentialForm(providers=["luma"])
            self.services.credentials.put(caller.project_id, "default", form)
        return Api(self.url, token, self.services, self.settings, self.context)

    def move(self, public_id: str, to: State, **fields: Any) -> None:
        """Let the provider have said so."""
        with self.services.database.transaction() as tx:
            now = db.now(tx)
            [g] = generations.lock(tx, [_uuid(public_id)])
            outputs = (Output("video", 0, VIDEO),) if to is State.COMPLETED else None
            decision = Decision(to=to, provider_status=to.value, outputs=outputs, **fields)
            step = steps.observed(g, decision, now, self.url)
            generations.rewrite(tx, [step.generation], now)
            assert step.event is not None
            outbox.publish(tx, [(step.event, step.generation)], now)
            if step.generation.finished_at:
                schedule.leave(tx, [g.id])
        self.services.bell.changed([str(g.id)])

    def store(self, public_id: str, content: bytes) -> str:
        """Complete a generation with a stored video; returns its SHA-256."""
        self.move(public_id, State.COMPLETED)
        digest = hashlib.sha256(content).hexdigest()
        store = store_at(self.settings.artifacts, self.settings.home / "spool")
        with self.services.database.transaction() as tx:
            now = db.now(tx)
            [g] = generations.lock(tx, [_uuid(public_id)])
            artifacts.wish(tx, [(g, output) for output in g.outputs], now)
            [wanted] = artifacts.claim(tx, now=now, limit=10)
            key = f"test/{g.id}-video-0.mp4"
            partial = store.spool.path(".kept.1.part")
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.write_bytes(content)
            store.put_file(key, partial, media_type="video/mp4")
            artifacts.stored(
                tx, wanted, object_key=key, size=len(content), sha256=digest, media_type="video/mp4", etag=None, now=now, seconds=1.0
            )  # fmt: skip
        return digest


def _uuid(public_id: str) -> UUID:
    found = ids.parse("gen", public_id)
    assert found is not None
    return found


@dataclass
class Running:
    """One server in a thread."""

    server: Server
    thread: threading.Thread
    port: int
    context: Context

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        assert not self.thread.is_alive(), "the server did not stop in time"


def serve(settings: Settings, services: Services) -> Running:
    """The API on a free port of the loopback."""
    app = create_app(settings, services)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_config=None, access_log=False, ws="none", timeout_graceful_shutdown=5
    )
    server = Server(config, app.state.context)
    thread = threading.Thread(target=server.run, name="api", daemon=True)
    thread.start()
    until(lambda: server.started, 10, "the API listens")
    return Running(server, thread, server.servers[0].sockets[0].getsockname()[1], app.state.context)


@contextmanager
def _client_of(settings: Settings, services: Services) -> Iterator[Api]:
    """The running API, through the bootstrap key; project `default` has a credential for luma."""
    services.keys.ensure_bootstrap(settings.required("bootstrap_api_key"))
    services.credentials.put(services.keys.project().project_id, "default", CredentialForm(providers=["luma"]))
    running = serve(settings, services)
    url, key = f"http://127.0.0.1:{running.port}", settings.required("bootstrap_api_key")
    with requests.Session() as session:
        yield Api(url, key, services, settings, running.context, session)
    running.stop()


@pytest.fixture
def api(settings: Settings, services: Services) -> Iterator[Api]:
    """An API of the test's own."""
    with _client_of(settings, services) as client:
        yield client


@pytest.fixture
def client_of() -> Any:
    """An API over other settings."""
    return _client_of


@pytest.fixture(scope="session")
def shared_api(
    postgres_url: str, template: str, redis_server_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Api]:
    """One API for all tests that do not mind what others left in it: a new one for each would take half a second."""
    name = f"shared_api_{secrets.token_hex(4)}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    settings = Settings(
        home=tmp_path_factory.mktemp("home"),
        database_url=SecretStr(urlunsplit(urlsplit(postgres_url)._replace(path=f"/{name}"))),
        redis_url=SecretStr(redis_server_url),
        secret_keys=SecretStr(Fernet.generate_key().decode()),
        bootstrap_api_key=SecretStr("trk_" + secrets.token_hex(20)),
    )
    services = wiring.build(settings)
    with _client_of(settings, services) as client:
        yield client
    services.close()
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
