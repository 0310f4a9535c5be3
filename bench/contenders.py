"""Who takes part in the polling benchmark: each can be started, told to ask about N generations once, and stopped."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from bench.ground import Ground, Tracker
from bench.kit import ROOT, rest_until, say, wait_for
from bench.programs import Program, Upstream
from tracker.services.asking import AT_ONCE

PEERS = ROOT / "bench" / "peers"
ENVIRONMENTS = {name: ROOT / "bench" / f".venv-{name}" for name in ("peers", "peers-arq")}
POLL_WORKERS = 2
"""Processes of our poll worker: the product's own default."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a scenario gives to all: servers, the upstream, the ids, and how many requests may be in flight."""

    ground: Ground
    upstream: Upstream
    ids: list[str]
    peers_url: str
    in_flight: int

    @property
    def ids_file(self) -> Path:
        return self.ground.folder / "ids.txt"


def stage(ground: Ground, upstream: Upstream, ids: list[str], peers_url: str) -> Stage:
    """A scenario's stage, with the generations in the peers' table and in the file that the loops without a database read."""
    made = Stage(ground, upstream, ids, peers_url, in_flight=800 if upstream.latency_ms else 100)
    made.ids_file.write_text("\n".join(ids))
    return made


def peers_table(url: str, ids: list[str]) -> None:
    """The one table that naive programs and peers keep."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE generations (number int NOT NULL UNIQUE, task_id text PRIMARY KEY,"
            " status text NOT NULL DEFAULT 'pending', polled_at timestamptz)"
        )
        with connection.cursor().copy("COPY generations (number, task_id) FROM STDIN") as copy:
            for number, task_id in enumerate(ids):
                copy.write_row((number, task_id))
        connection.execute("ANALYZE generations")


@dataclass
class Contender:
    """`rate` is about how many polls a second it makes at 0 and at 200 ms: it decides nothing but how long a round is."""

    name: str
    rate: tuple[int, int]
    about: str = ""
    warm: int = 2000
    """Polls of the round that is not counted, after which every worker process has started and every connection is open: polling goes on
    for months, and what is counted is what it costs then."""

    def missing(self) -> str | None:
        """Why it cannot take part, in words."""
        return None

    def start(self, at: Stage) -> None:
        raise NotImplementedError

    def prepare(self, count: int) -> None:
        """What precedes an order and is not counted."""

    def go(self, count: int) -> None:
        """See that `count` generations are asked about once; returns at once or when all is ordered."""
        raise NotImplementedError

    def recorded(self, count: int) -> bool:
        """Whether all that was asked is stored."""
        raise NotImplementedError

    @property
    def trees(self) -> dict[str, int]:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError


@dataclass
class Peer(Contender):
    """A program of bench/peers with a producer, which takes orders, and a worker where there is one."""

    producer: tuple[str, ...] = ()
    worker: tuple[str, ...] = ()
    venv: str = "peers"
    redis_number: int = 1
    stores: bool = True
    as_many: bool = False
    """Whether it has as many requests in flight at 200 ms as our workers may have together."""
    _programs: dict[str, Program] = field(default_factory=dict)

    def missing(self) -> str | None:
        if self.venv and not (ENVIRONMENTS[self.venv] / "bin" / "python").exists():
            return "its environment is not installed: python -m bench.polling --install-peers"
        return None

    def start(self, at: Stage) -> None:
        self._at = at
        in_flight = POLL_WORKERS * AT_ONCE if self.as_many and at.upstream.latency_ms else at.in_flight
        environ = {
            "BENCH_DATABASE_URL": at.peers_url,
            "BENCH_REDIS_URL": at.ground.redis_url(self.redis_number),
            "BENCH_UPSTREAM": at.upstream.url,
            "BENCH_IN_FLIGHT": str(in_flight),
            "BENCH_IDS": str(at.ids_file),
            "BENCH_CA": str(at.ground.authority_file),
            "REQUESTS_CA_BUNDLE": str(at.ground.authority_file),
            "PYTHONPATH": str(PEERS),
        }
        log = at.ground.folder / "peers.log"
        self._programs["producer"] = Program(self._command(self.producer), log=log, environ=environ, ready=b"ready")
        if self.worker:
            self._programs["worker"] = Program(self._command(self.worker), log=log, environ=environ)

    def _command(self, parts: tuple[str, ...]) -> list[str]:
        python = str(ENVIRONMENTS[self.venv] / "bin" / "python") if self.venv else sys.executable
        return [python, *parts]

    def prepare(self, count: int) -> None:  # noqa: ARG002 - all rows are ready to be asked about
        with psycopg.connect(self._at.peers_url, autocommit=True) as connection:
            self._since = connection.execute("SELECT clock_timestamp()").fetchone()

    def go(self, count: int) -> None:
        self._programs["producer"].tell(f"go 0 {count}")
        self._programs["producer"].line()

    def recorded(self, count: int) -> bool:
        if not self.stores:
            return True
        with psycopg.connect(self._at.peers_url, autocommit=True) as connection:
            found = connection.execute("SELECT count(*) FROM generations WHERE polled_at >= %s", self._since).fetchone()
        return found is not None and found[0] >= count

    @property
    def trees(self) -> dict[str, int]:
        return {name: program.pid for name, program in self._programs.items()}

    def stop(self) -> None:
        for program in self._programs.values():
            program.stop()
        self._programs.clear()
        self._at.ground.forget_messages(self.redis_number)


@dataclass
class Ours(Contender):
    """The product: beat, the default worker that ticks and claims, and the poll worker. Ticks, events to Flower and all else are on."""

    warm: int = 24_000
    path: str = "/single"
    database: str = "ours"
    redis_number: int = 6
    _tracker: Tracker | None = None

    def start(self, at: Stage) -> None:
        self._at = at
        tracker = self._tracker or self._settled_in(at)
        tracker.credential(at.upstream.url + self.path)
        tracker.start("worker-poll", "worker-default", "beat", trust=at.upstream.tls)

    def _settled_in(self, at: Stage) -> Tracker:
        """Registered, and seen processing already: what is measured are answers that change nothing."""
        say(f"  registering {len(at.ids):,} generations for {self.name}")
        made = Tracker(at.ground, self.database, redis_number=self.redis_number, workers_poll=POLL_WORKERS)
        made.credential(at.upstream.url + self.path)
        made.register(at.ids)
        made.connection.execute("UPDATE generations SET state = 'processing', provider_status = 'processing'")
        made.connection.execute("VACUUM ANALYZE")
        self._tracker = made
        return made

    @property
    def tracker(self) -> Tracker:
        assert self._tracker is not None
        return self._tracker

    def prepare(self, count: int) -> None:
        """Make exactly `count` generations due at one moment a little ahead, so that this statement's own cost is over by then."""
        self.tracker.connection.execute(
            "UPDATE polls SET due_at = now() + interval '1 hour' WHERE due_at < now() + interval '10 min'"
        )
        # This mass update is the benchmark's own: what it leaves behind shall not be cleaned up within the window.
        self.tracker.connection.execute("VACUUM polls")
        begins = time.monotonic() + 2.0
        with self.tracker.connection.transaction():
            row = self.tracker.connection.execute("SELECT now() + interval '2 seconds'").fetchone()
            assert row is not None
            self._since = row[0]
            self.tracker.connection.execute(
                "UPDATE polls SET due_at = %s WHERE generation_id IN (SELECT generation_id FROM polls LIMIT %s)",
                (self._since, count),
            )
        rest_until(begins)

    def go(self, count: int) -> None:  # noqa: ARG002 - `prepare` has made them due
        self.tracker.services.bell.ring("poll.dispatch", "default", because="benchmark")

    def recorded(self, count: int) -> bool:
        # Counting all polls takes as long as a hundred of them: only once nothing is in flight any more.
        return (
            self._figure("SELECT count(*) FROM flights") == 0
            and self._figure("SELECT count(*) FROM polls WHERE asked_at >= %s", self._since) >= count
        )

    def _figure(self, statement: str, *values: object) -> int:
        row = self.tracker.connection.execute(statement, values).fetchone()
        return int(row[0]) if row else 0

    @property
    def trees(self) -> dict[str, int]:
        return self.tracker.trees

    def stop(self) -> None:
        self.tracker.stop()

    def close(self) -> None:
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None


def _celery(pool: str, concurrency: int) -> tuple[str, ...]:
    options = ("-P", pool, "-c", str(concurrency), "--without-gossip", "--without-mingle", "--loglevel=ERROR")
    return ("-m", "celery", "-A", "naive", "worker", *options)


def everyone() -> list[Contender]:
    """All contenders, those first whom the others are compared with."""
    here = "bench/peers"
    naive = (f"{here}/naive.py",)
    taskiq = (
        "-m",
        "taskiq",
        "worker",
        "taskiq_peer:broker",
        "--workers=1",
        "--max-async-tasks=800",
        "--log-level=ERROR",
    )
    arq, procrastinate = f"{here}/arq_peer.py", f"{here}/procrastinate_peer.py"
    return [
        Peer("naive Celery, prefork 2", (200, 9), producer=naive, worker=_celery("prefork", 2)),
        Peer("naive Celery, threads 50", (200, 150), producer=naive, worker=_celery("threads", 50)),
        Peer("naive Celery, gevent 100", (200, 150), producer=naive, worker=_celery("gevent", 100)),
        Peer("arq", (900, 900), producer=(arq,), worker=(arq, "worker"), venv="peers-arq", redis_number=2),
        Peer("taskiq", (1200, 1200), producer=(f"{here}/taskiq_peer.py",), worker=taskiq, redis_number=3),
        Peer("procrastinate", (300, 300), producer=(procrastinate,), worker=(procrastinate, "worker")),
        Peer(
            "asyncio and aiohttp, nothing kept", (6000, 3000), producer=(f"{here}/bare.py",), stores=False, as_many=True
        ),
        Peer("libcurl alone, nothing kept", (8000, 3500), producer=("-m", "bench.limit"), venv="", stores=False),
        Ours("this tracker", (6000, 6000)),
        Ours("this tracker, batch queries", (6000, 6000), path="", database="ours_batch", redis_number=7),
    ]


def install_peers(run: Callable[..., object] = subprocess.run) -> None:
    """Make the peers' environments beside this file."""
    for name, folder in ENVIRONMENTS.items():
        say(f"installing {folder.name}")
        run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [
            str(folder / "bin" / "python"),
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--no-input",
            "install",
            "--quiet",
        ]
        run([*pip, "-r", str(ROOT / "bench" / f"requirements-{name}.txt")], check=True)


def settle(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for it, looking rarely enough that the looking costs nothing."""
    return wait_for(condition, seconds, pause=0.05)
