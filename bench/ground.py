"""The ground that benchmarks stand on: durable servers of their own, an upstream, and whole installations of the product.

The product's processes are started from the supervisor's own table, so that what is measured is what `tracker up` runs.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
import redis
import trustme
from cryptography.fernet import Fernet
from pydantic import SecretStr

from bench.kit import ROOT, wait_for
from bench.programs import Simulator
from bench.upstream import HELD_PLACE
from tracker import wiring
from tracker.embedded import environment, roster
from tracker.embedded.ports import free_port, release
from tracker.embedded.postgres import Postgres
from tracker.embedded.valkey import Valkey
from tracker.net import descriptors
from tracker.services.forms import CredentialForm, RegistrationForm
from tracker.settings import Settings
from tracker.store.migrations import migrate

SERVERS = {
    "track_commit_timestamp": "on",
    "max_connections": "200",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "30min",
    "shared_buffers": "512MB",
    "min_wal_size": "1600MB",
}
"""Room, the moments of commits, and no checkpoint within a window. fsync and synchronous_commit stay on; the product turns the latter off
for claims alone, and for the attempts of webhooks."""
LOG_FILES = 96
"""Files of write-ahead log, of 16 MB each, that a server has at hand: as many as min_wal_size keeps, and more than a benchmark fills."""
WITHOUT_BOUND = {"requests_per_second": 100_000, "concurrency": 100_000}
"""A budget that no benchmark reaches, where budgets are not what is measured."""


class Ground:
    """Servers, a folder and an authority for certificates, all gone at the end of `laid()`."""

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.postgres = Postgres(
            folder / "postgres", port=free_port(17432), password="bench", extra=SERVERS | dict(settings or {})
        )
        self.valkey = Valkey(folder / "valkey", port=free_port(17632), password="bench")
        authority = trustme.CA()
        self.authority_file = folder / "authority.pem"
        authority.cert_pem.write_to_path(str(self.authority_file))
        self.certificate_file = folder / "certificate.pem"
        authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(
            str(self.certificate_file)
        )

    def redis_url(self, number: int) -> str:
        """One of Valkey's sixteen databases."""
        return self.valkey.url.removesuffix("/0") + f"/{number}"

    def database(self, name: str) -> str:
        """A new, empty database; its address."""
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        return urlunsplit(urlsplit(self.postgres.url)._replace(path=f"/{name}"))

    def forget_messages(self, number: int) -> None:
        """Empty one of Valkey's databases: what an earlier round left in a queue is not this round's work."""
        with redis.Redis.from_url(self.redis_url(number)) as client:
            client.flushdb()

    @property
    def servers(self) -> dict[str, int]:
        """Process ids of the servers, for the meter."""
        return {"postgres": _pid(self.postgres.process), "redis": _pid(self.valkey.process)}


def _pid(process: subprocess.Popen[bytes] | None) -> int:
    if process is None:
        raise RuntimeError("it is not running")
    return process.pid


@contextmanager
def laid(settings: Mapping[str, str] | None = None) -> Iterator[Ground]:
    """Fresh servers, stopped and removed afterwards. `settings` of PostgreSQL go before those that all benchmarks share."""
    descriptors.allow_many()  # for those who have none of the product's in them
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped then too
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        ground = Ground(Path(folder), settings)
        try:
            ground.postgres.start()
            _age(ground.postgres)
            ground.valkey.start()
            yield ground
        finally:
            for server in (ground.valkey, ground.postgres):
                server.stop()
                server.remove()
                release(server.port)


def _age(postgres: Postgres) -> None:
    """Give a new server the files that one has which has run for a while: it writes its log over old ones, made at checkpoints before.

    A new one makes and zeroes a file after every 16 MB, and whoever commits then waits some 50 ms: once in five seconds at 2,000 polls a
    second, by which every hundredth webhook was late (measured).
    """
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        for _ in range(LOG_FILES):
            connection.execute(
                "SELECT pg_logical_emit_message(true, 'bench', 'one record, so that there is something to end a file with')"
            )
            connection.execute("SELECT pg_switch_wal()")
        connection.execute("CHECKPOINT")


def pending_answer(ground: Ground) -> bytes:
    """What the simulator answers about a generation that goes on, with the id's place held: the canned upstream's template."""
    return _answer(ground, {"queue": 0, "duration": 100_000})


def ended_answer(ground: Ground) -> bytes:
    """The same about one that is completed, with all its links."""
    return _answer(ground, {"queue": 0, "duration": 0})


def _answer(ground: Ground, wish: dict[str, float]) -> bytes:
    simulator = Simulator(ground)
    try:
        task_id = simulator.call("generations", wish)["id"]
        request = urllib.request.Request(
            f"{simulator.url}/luma/generations/{task_id}", headers={"Authorization": "Bearer key"}
        )
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10) as answer:
            return answer.read().replace(task_id.encode(), HELD_PLACE)
    finally:
        simulator.stop()


def new_ids(count: int) -> list[str]:
    """Task ids in the provider's form."""
    return [str(uuid.uuid4()) for _ in range(count)]


class Tracker:
    """One installation of the product on a database of its own. `build` makes its services in this process; `start` its processes."""

    def __init__(self, ground: Ground, name: str, *, redis_number: int, **fields: Any) -> None:
        self.ground, self.name, self._redis_number = ground, name, redis_number
        folder = ground.folder / name
        folder.mkdir()
        self.logs = folder / "logs"
        self.logs.mkdir()
        url = ground.database(name)
        migrate(url)
        self._api_port = free_port(18500)
        self.settings = Settings(
            home=folder,
            database_url=SecretStr(url),
            redis_url=SecretStr(ground.redis_url(redis_number)),
            broker_url=SecretStr(ground.redis_url(redis_number)),
            secret_keys=SecretStr(Fernet.generate_key().decode()),
            bootstrap_api_key=SecretStr("trk_" + secrets.token_hex(20)),
            api_port=self._api_port,
            simulator_port=0,
            given=frozenset({"database_url", "redis_url", *fields}),
            **fields,
        )
        self.services = wiring.build(self.settings, application="bench")
        self.services.keys.ensure_bootstrap(self.settings.required("bootstrap_api_key"))
        self.project_id = self.services.keys.project().project_id
        self.connection = psycopg.connect(url, autocommit=True)
        self._running: dict[str, Any] = {}

    def credential(self, base_url: str, name: str = "default", **budget: float) -> None:
        """A provider account that is the upstream; without `budget` nothing bounds it."""
        form = CredentialForm(providers=["luma"], base_url=base_url, api_key="key", **(budget or WITHOUT_BOUND))
        self.services.credentials.put(self.project_id, name, form, force=True)  # the next scenario is another upstream

    def register(self, ids: Iterable[str], **fields: Any) -> None:
        """Track these tasks, in batches of 1,000 as a caller would."""
        forms = [RegistrationForm(provider="luma", task_id=one, timeout="P30D", **fields) for one in ids]
        for i in range(0, len(forms), 1000):
            outcomes = self.services.registration.register_many(self.project_id, forms[i : i + 1000])
            if not all(getattr(outcome, "created", False) for outcome in outcomes):
                raise RuntimeError(f"not registered: {outcomes[0]}")

    def start(self, *names: str, trust: bool = False) -> None:
        """Start these programs of the supervisor's table. `trust` lets them accept the benchmark's own certificates."""
        environ = environment.complete(self.settings, os.environ, own_database=True, simulator_url=None)
        if trust:
            # certifi offers no setting; a module of its name in front of it does. Only benchmarks do such a thing.
            environ |= {"PYTHONPATH": str(ROOT / "bench" / "trust"), "BENCH_CA": str(self.ground.authority_file)}
        found = {member.child.name: member for member in roster.programs(self.settings, environ, self.logs, self.logs)}
        for name in names:
            found[name].launch()
            self._running[name] = found[name].child
        waiting = [found[name].answers for name in names if found[name].answers]
        if not wait_for(lambda: all(answers() for answers in waiting if answers), 30):
            raise RuntimeError(f"{names} did not start: see {self.logs}")

    @property
    def trees(self) -> dict[str, int]:
        """Process ids of what runs, for the meter."""
        return {name: child.pid for name, child in self._running.items() if child.pid}

    def stop(self) -> None:
        """End its processes, and forget the messages that they left."""
        for child in self._running.values():
            child.ask_to_stop()
        for child in self._running.values():
            child.stop()
        self._running.clear()
        self.ground.forget_messages(self._redis_number)

    def close(self) -> None:
        self.stop()
        self.connection.close()
        self.services.close()
        release(self._api_port)
        shutil.rmtree(self.logs, ignore_errors=True)

    def said(self) -> str:
        """The end of every log, for when something went wrong."""
        return "\n".join(f"== {log.name}\n{log.read_text()[-1500:]}" for log in sorted(self.logs.glob("*.log")))


def poll_beside(tracker: Tracker, rate: float) -> None:
    """Generations that are due again and again: with a look every 10 s, `rate` polls a second, whose answers change nothing."""
    tracker.register(new_ids(int(rate * 10)), poll_longest=10, poll_price=1000)
    tracker.connection.execute(
        "UPDATE generations SET state = 'processing', provider_status = 'processing'"
        " WHERE id IN (SELECT generation_id FROM polls WHERE due_at < now() + interval '1 hour')"
    )
    tracker.connection.execute("VACUUM ANALYZE")
    tracker.connection.execute(
        "UPDATE polls SET due_at = now() + random() * interval '10 seconds' WHERE due_at < now() + interval '1 hour'"
    )
