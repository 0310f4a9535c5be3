"""A whole installation of a test's own, every part of which may be killed: servers, API, workers, two beats; and what must hold after."""

from __future__ import annotations

import hashlib
import json
import secrets
import signal
import time
import urllib.error
import urllib.request
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import pytest
import redis
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import text

from tests.journeys.conftest import QUEUES, Receiver, Simulator, Workers, until
from tracker import wiring
from tracker.core.lifecycle import NEXT
from tracker.embedded.ports import free_port, release
from tracker.embedded.postgres import Postgres
from tracker.embedded.valkey import Valkey
from tracker.services.forms import CredentialForm
from tracker.settings import Settings
from tracker.store.generations import Filters
from tracker.store.migrations import migrate

SERVERS = ("postgres", "valkey")
VICTIMS = (*QUEUES, "beat", "api", *SERVERS)
STORIES = (
    {"misbehaviour": ""},
    {"misbehaviour": "slowfile_2s"},
    {"misbehaviour": "slow_1x_1s"},
    {"misbehaviour": "failed", "fail_reason": "the lights went out"},
    {"misbehaviour": "http502_1x"},
    {"misbehaviour": "backwards"},
)  # fmt: skip
"""Lives that keep every queue busy, so that a kill falls into the middle of something."""

_BUSY = {
    "poll": "SELECT FROM flights WHERE until > clock_timestamp() + interval '42 s'",
    "webhook": "SELECT FROM deliveries WHERE lease_until > clock_timestamp()",
    "download": "SELECT FROM artifacts WHERE lease_until > clock_timestamp()",
}


@dataclass
class Tally:
    """What happened, for the table of a long run."""

    kills: Counter[str] = field(default_factory=Counter)
    registered: list[str] = field(default_factory=list)
    refused: int = 0
    settled_in: float = 0.0
    """Seconds from the last blow until everything was where it must come to."""


class Installation:
    """Durable servers, the API, a worker for each queue and two beats, as real processes; nothing but the simulator is safe."""

    def __init__(self, folder: Path, simulator: Simulator, receiver: Receiver) -> None:
        self.simulator, self.receiver, self.tally = simulator, receiver, Tally()
        # A password of its own each time: what an interrupted run left behind must not join.
        self.postgres = Postgres(folder / "postgres", port=free_port(17632), password=secrets.token_hex(8))
        self.valkey = Valkey(folder / "valkey", port=free_port(17732), password=secrets.token_hex(8))
        self.api_port = free_port(17832)
        self.settings = Settings(
            home=folder / "home",
            api_port=self.api_port,
            database_url=SecretStr(self.postgres.url),
            redis_url=SecretStr(self.valkey.url),
            broker_url=SecretStr(self.valkey.url),
            secret_keys=SecretStr(Fernet.generate_key().decode()),
            bootstrap_api_key=SecretStr("trk_" + secrets.token_hex(20)),
            given=frozenset({"database_url", "redis_url"}),
        )
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.workers = Workers(self.settings, self.logs)
        self.services = wiring.build(self.settings)
        receiver.delay = 0.2  # so that a kill finds one in the middle

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Started, and ended with everything that it began, however the test ends."""
        try:
            self.start()
            yield self
        finally:
            self.stop()
            print(self.workers.said())

    def start(self) -> None:
        self.postgres.start()
        self.valkey.start()
        migrate(self.postgres.url)
        self.services.keys.ensure_bootstrap(self.settings.required("bootstrap_api_key"))
        self.project: UUID = self.services.keys.project().project_id
        form = CredentialForm(
            providers=["luma"], base_url=self.simulator.url, api_key="key", requests_per_second=500, concurrency=200
        )
        self.services.credentials.put(self.project, "default", form)
        self.receiver.secret = self.services.endpoints.project_secret(self.project)
        for name in (*QUEUES, "beat", "beat-2", "api"):
            self.workers.start(name)
        until(lambda: self.api("GET", "/healthz"), 60, "the API is up")
        self.workers.ready()

    def stop(self) -> None:
        self.workers.stop()
        self.services.close()
        self.valkey.stop()
        self.postgres.stop()
        self.postgres.remove()
        self.valkey.remove()
        for port in (self.postgres.port, self.valkey.port, self.api_port):
            release(port)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """One call; None when the API is dead or its servers are."""
        key = self.settings.required("bootstrap_api_key")
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.api_port}{path}", None if body is None else json.dumps(body).encode(), method=method,
            headers={"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
        )  # fmt: skip
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as refused:
            return None if refused.code >= 500 else pytest.fail(f"{refused.code}: {refused.read()!r}")
        except (OSError, ValueError):
            return None

    def register(self, count: int, *, duration: float) -> None:
        """Submit at the simulator and register through the API, again and again until it has answered: as any client would."""
        tasks = [
            self.simulator.call("generations", {"queue": 1, "duration": duration, **STORIES[i % len(STORIES)]})["id"]
            for i in range(count)
        ]
        items = [
            {"provider": "luma", "task_id": task, "webhook_url": self.receiver.url, "download": ["video", "thumbnail"],
             "poll_price": 0.1}
            for task in tasks
        ]  # fmt: skip

        def acknowledged() -> bool:
            answer = self.api("POST", "/v1/generations/batch", {"generations": items})
            self.tally.refused += answer is None
            return answer is not None and all(r["status"] in {200, 201} for r in answer["results"])

        until(acknowledged, 60, "the registration was acknowledged")
        self.tally.registered += tasks

    def kill(self, victim: str) -> None:
        """SIGKILL in the middle of its work, and a start soon after, as any supervisor would."""
        if victim in _BUSY:
            self._catch(victim)
        self.tally.kills[victim] += 1
        if victim in SERVERS:
            server = self.postgres if victim == "postgres" else self.valkey
            server.child.kill()
            until(lambda: _started(server), 30, f"{victim} is back")
        else:
            self.workers.kill(victim)
            self.workers.start(victim)

    def _catch(self, victim: str) -> None:
        """Wait until it is in the middle of something; on a busy machine the work may be over before we look, so there comes more."""
        more_at = time.monotonic() + 10

        def in_the_middle() -> bool:
            nonlocal more_at
            if time.monotonic() > more_at:
                self.register(len(STORIES), duration=1)
                more_at = time.monotonic() + 10
            return self._is_busy(victim)

        until(in_the_middle, 60, f"{victim} is in the middle of something")

    def _is_busy(self, victim: str) -> bool:
        with self.services.database.transaction() as tx:
            return bool(tx.execute(text(f"SELECT EXISTS ({_BUSY[victim]})")).scalar_one())

    def flush(self) -> None:
        """Forget all messages and rings."""
        self.tally.kills["FLUSHALL"] += 1
        with redis.Redis.from_url(self.valkey.url) as client:
            client.flushall()

    def freeze(self, name: str, seconds: float) -> None:
        """SIGSTOP a worker with its children, and let it go on later, believing that no time has passed."""
        self.tally.kills[f"SIGSTOP {name}"] += 1
        self.workers.signal(name, signal.SIGSTOP)
        ends = time.monotonic() + seconds
        until(lambda: time.monotonic() > ends, seconds + 5, "the stop is over")
        self.workers.signal(name, signal.SIGCONT)

    def everything(self) -> list[Any]:
        found: list[Any] = []
        before = None
        while True:
            page, before = self.services.generations.page(self.project, Filters(before_id=before), 200)
            found += page
            if before is None:
                return found

    def settle(self, seconds: float) -> None:
        """Wait until every generation has ended, and each of its copies and webhooks is where it belongs."""
        began = time.monotonic()
        until(
            lambda: not self.left(),
            seconds,
            lambda: f"all is settled; left are {self.left()} {self._waiting()}",
            pause=0.5,
        )
        self.tally.settled_in = time.monotonic() - began

    def left(self) -> dict[str, int]:
        """What is not settled yet, counted."""
        found = self.everything()
        left = Counter(str(g.state) for g in found if not g.finished_at)
        left += Counter(f"artifact {a.state}" for g in found for a in g.artifacts if a.state != "stored")
        rows, _ = self.services.deliveries.page(self.project, None, 200, state="pending")
        return left + Counter({"deliveries": len(rows)})

    def _waiting(self) -> list[Any]:
        """The webhooks that are not delivered, with what became of their attempts."""
        rows, _ = self.services.deliveries.page(self.project, None, 200, state="pending")
        return [self.services.deliveries.get(self.project, row.id) for row in rows]


def _started(server: Postgres | Valkey) -> bool:
    if not server.child.running:
        server.launch()
    return server.ready()


def check(world: Installation) -> dict[str, int]:
    """Assert everything that must hold after any disaster; returns figures for people."""
    found = {g.task_id: g for g in world.everything()}
    assert set(world.tally.registered) == set(found), "what was acknowledged is there, and nothing else"
    moves = {task: world.services.generations.transitions(world.project, g.id) for task, g in found.items()}
    for task, g in found.items():
        states = [m.to_state for m in moves[task]]
        assert g.state == ("failed" if task.startswith("failed") else "completed"), (task, g.state, g.error)
        assert all(after in NEXT[before] for before, after in pairwise(states)), (task, states)
        assert [m.from_state for m in moves[task][1:]] == states[:-1], task
        assert len({m.sequence for m in moves[task]}) == len(moves[task]) == len(set(states)), task
        _check_copies(world, g)
    return {"generations": len(found), "polls": sum(g.polls for g in found.values()), **_check_webhooks(world, found)}


def _check_copies(world: Installation, g: Any) -> None:
    assert len(g.artifacts) == (2 if g.state == "completed" else 0)
    truth = world.simulator.call(f"generations/{g.task_id}")["files"] if g.artifacts else {}
    for copy in g.artifacts:
        stored = world.services.artifacts.find(world.project, g.id, copy.kind, copy.index)
        content = b"".join(world.services.artifacts.read(stored))
        expected = truth["video.mp4" if copy.kind == "video" else "thumbnail.jpg"]
        assert hashlib.sha256(content).hexdigest() == copy.sha256 == expected, g.task_id


def _check_webhooks(world: Installation, found: dict[str, Any]) -> dict[str, int]:
    """Each event arrived; what arrived twice carries one id and one body."""
    receiver = world.receiver
    assert receiver.wrong == []
    bodies: dict[str, set[str]] = defaultdict(set)
    by_generation: dict[str, Counter[str]] = defaultdict(Counter)
    for key, event in zip(receiver.ids, receiver.got, strict=True):
        if key not in bodies:
            by_generation[event["data"]["task_id"]][event["type"]] += 1
        bodies[key].add(json.dumps(event, sort_keys=True))
    assert all(len(same) == 1 for same in bodies.values()), "one id, one body"
    for task, g in found.items():
        expected = {"generation.failed": 1}
        if g.state == "completed":
            expected = {"generation.completed": 1, "artifact.stored": 2, "artifacts.done": 1}
        assert by_generation[task] == expected, task
    return {"events": len(bodies), "sent twice": len(receiver.ids) - len(bodies)}
