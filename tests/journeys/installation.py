"""A whole installation of a test's own, every part of which may be killed: servers, API, workers, two beats."""

from __future__ import annotations

import http.client
import json
import secrets
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import pytest
import redis
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tests.journeys.conftest import QUEUES, Receiver, Simulator, Workers, until
from tracker import wiring
from tracker.embedded.ports import free_port, release
from tracker.embedded.postgres import Postgres
from tracker.embedded.valkey import Valkey
from tracker.services.forms import CredentialForm
from tracker.settings import Settings
from tracker.store import db
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

REPEATS = 150
"""How often a batch names each task that is registered while the API is killed: so long does the call take, and so large is its answer."""
_CALLS = {
    "committed": "SELECT FROM generations WHERE task_id = :task",
    "writing": "SELECT FROM pg_stat_activity WHERE application_name = 'tracker-api' AND backend_xid IS NOT NULL",
}
"""Where a registration can be hit: after its commit, so that the client never hears of it, and before."""
_LEASED = {"webhook": "deliveries", "download": "artifacts"}
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
    unheard: int = 0
    """Registrations that were committed, and whose answer was lost."""
    settled_in: float = 0.0
    """Seconds from the last blow until everything was where it must come to."""


class Installation:
    """Durable servers, the API, a worker for each queue and two beats, as real processes; nothing but the simulator is safe."""

    def __init__(self, folder: Path, simulator: Simulator, receiver: Receiver, *, lapsing: bool = False) -> None:
        self.lapsing = lapsing
        """Whether the leases of the killed lapse at once, as if 45 s had passed."""
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
        except (OSError, ValueError, http.client.HTTPException):
            return None

    def register(self, count: int, *, duration: float) -> None:
        """Submit at the simulator and register through the API, again and again until it has answered: as any client would."""
        self._acknowledge(self._items(count, duration))

    def _items(self, count: int, duration: float) -> list[dict[str, Any]]:
        tasks = [
            self.simulator.call("generations", {"queue": 1, "duration": duration, **STORIES[i % len(STORIES)]})["id"]
            for i in range(count)
        ]
        self.tally.registered += tasks
        return [
            {"provider": "luma", "task_id": task, "webhook_url": self.receiver.url, "download": ["video", "thumbnail"],
             "poll_price": 0.1}
            for task in tasks
        ]  # fmt: skip

    def _acknowledge(self, items: list[dict[str, Any]]) -> None:
        def acknowledged() -> bool:
            answer = self.api("POST", "/v1/generations/batch", {"generations": items})
            self.tally.refused += answer is None
            return answer is not None and all(r["status"] in {200, 201} for r in answer["results"])

        until(acknowledged, 60, "the registration was acknowledged")

    def kill(self, victim: str) -> None:
        """SIGKILL in the middle of its work, and a start soon after, as any supervisor would."""
        if victim == "api":
            self._kill_api()
            return
        if victim in _BUSY:
            self._catch(victim)
        self.tally.kills[victim] += 1
        if victim in SERVERS:
            server = self.postgres if victim == "postgres" else self.valkey
            server.child.kill()
            until(lambda: _started(server), 30, f"{victim} is back")
        elif victim == "beat":
            self._kill_beats()
        else:
            self.workers.kill(victim)
            self._lapse(victim)
            self.workers.start(victim)

    def _kill_api(self) -> None:
        """While a client's registration is under way, who repeats it; in turn after the commit and before it."""
        place = list(_CALLS)[self.tally.kills["api"] % len(_CALLS)]
        while not self._interrupted(place):
            pass
        self.tally.kills["api"] += 1
        self.tally.unheard += place == "committed"

    def _interrupted(self, place: str) -> bool:
        """Kill the API once it is there with a registration; whether that was before its answer had come."""
        items, refused = self._items(len(STORIES), duration=1), self.tally.refused
        client, task = threading.Thread(target=self._acknowledge, args=(items * REPEATS,)), items[0]["task_id"]
        client.start()
        until(lambda: not client.is_alive() or self._sees(_CALLS[place], task=task), 60, place, pause=0)
        self.workers.kill("api")
        self.workers.start("api")
        client.join()
        return self.tally.refused > refused

    def _kill_beats(self) -> None:
        """Both, in the middle of a second: for a while nobody rings."""
        pulse = self.workers.pulse("beat")
        until(lambda: pulse.exists() and 0.3 < time.time() - pulse.stat().st_mtime < 0.7, 30, "it rang", pause=0.01)
        for name in ("beat", "beat-2"):
            self.workers.kill(name)
            self.workers.start(name)

    def _lapse(self, victim: str) -> None:
        if self.lapsing and victim in _LEASED:
            with self.services.database.transaction() as tx:
                tx.execute(text(
                    f"UPDATE {_LEASED[victim]} SET due_at = now(), lease_until = NULL WHERE lease_until IS NOT NULL"
                    " AND state = 'pending'"
                ))  # fmt: skip

    def _catch(self, victim: str) -> None:
        """Wait until it is in the middle of something; on a busy machine the work may be over before we look, so there comes more."""
        more_at = time.monotonic() + 10

        def in_the_middle() -> bool:
            nonlocal more_at
            if time.monotonic() > more_at:
                self.register(len(STORIES), duration=1)
                more_at = time.monotonic() + 10
            return self._sees(_BUSY[victim])

        until(in_the_middle, 60, f"{victim} is in the middle of something")

    def _sees(self, query: str, **values: Any) -> bool:
        try:
            with self.services.database.transaction() as tx:
                return bool(tx.execute(text(f"SELECT EXISTS ({query})"), values).scalar_one())
        except DBAPIError as wrong:
            if db.unreachable(wrong):
                return False  # another thread freezes a worker while the database is killed
            raise

    def flush(self) -> None:
        """Forget all messages and rings."""
        self.tally.kills["FLUSHALL"] += 1
        with redis.Redis.from_url(self.valkey.url) as client:
            client.flushall()

    def freeze(self, name: str, seconds: float) -> None:
        """SIGSTOP a worker with its children, and let it go on later, believing that no time has passed."""
        self._catch(name)
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
        left += Counter({"deliveries": len(rows)})
        return left + Counter(f"{name} that ended by itself" for name in self.workers.ended())

    def _waiting(self) -> list[Any]:
        """The webhooks that are not delivered, with what became of their attempts."""
        rows, _ = self.services.deliveries.page(self.project, None, 200, state="pending")
        return [self.services.deliveries.get(self.project, row.id) for row in rows]


def _started(server: Postgres | Valkey) -> bool:
    if not server.child.running:
        server.launch()
    return server.ready()
