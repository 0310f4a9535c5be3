"""Who runs: the table of our own programs, each with its command, its log and the order in which they end."""

from __future__ import annotations

import http.client
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tracker.embedded.child import Child
from tracker.embedded.ports import LOOPBACK
from tracker.embedded.postgres import Postgres
from tracker.embedded.supervisor import Member
from tracker.embedded.valkey import Valkey
from tracker.settings import Settings

PROJECT = Path(__file__).resolve().parent.parent.parent
"""The folder that holds `tracker` and `workers`, in a checkout as in an installed package. Children start there, so they import ours."""
DOOR, BEAT, WORKER, WATCHER, BROKER, DATABASE = 6, 5, 4, 3, 2, 1
"""Stages: first nothing new comes in, then what runs ends, and the servers go last."""
ANSWER_LIMIT = 5.0
FLOWER_TASKS, FLOWER_WORKERS = 20_000, 500
"""What Flower keeps in memory; without a bound it grows for ever."""
FLOWER_COLUMNS = "--tasks_columns=name,args,state,received,runtime,worker"
"""The arguments tell the story, such as `luma x120`; the ids of messages tell nobody anything."""
HUGE_PAGES = "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1"
"""Memory of poll workers comes in pages of 2 MB, where the system gives any: of thousands of requests in flight each is touched in its
turn, and to find their pages took a sixth of libcurl's part where answers take 200 ms (measured). Only the one arena has such pages."""
GRACE = 10.0
"""Seconds for running requests and tasks at a stop. Longer ones are cut off: their claims lapse and the next start takes them up again."""


Environment = Mapping[str, str]


def programs(settings: Settings, environment: Environment, logs: Path, runtime: Path) -> list[Member]:
    """Everything but the servers and Flower."""
    sizes = {
        "default": 1,
        "poll": settings.workers_poll,
        "webhook": settings.workers_webhook,
        "download": settings.workers_download,
    }
    level = f"--loglevel={settings.log_level}"
    api = _python("api", ["tracker.api"], environment, logs)
    beat = _celery("beat", ["-s", str(runtime / "beat-schedule"), "--pidfile=", level], environment, logs)
    workers = [_worker(queue, size, level, environment, logs) for queue, size in sizes.items()]
    ready = answers(settings.api_host, settings.api_port, "/readyz")
    members = [_member(api, DOOR, ready), _member(beat, BEAT), *(_member(worker, WORKER) for worker in workers)]
    return [_simulator(settings, environment, logs), *members] if settings.simulator_port else members


def flower(settings: Settings, environment: Environment, logs: Path) -> Member:
    """Celery's monitor, to be started after the workers. Its password stands in the environment, never on the command line."""
    bounds = [
        f"--max_tasks={FLOWER_TASKS}",
        f"--max_workers={FLOWER_WORKERS}",
        "--purge_offline_workers=60",
        FLOWER_COLUMNS,
    ]
    options = [f"--address={LOOPBACK}", f"--port={settings.flower_port}", *bounds]
    secret = {"FLOWER_BASIC_AUTH": settings.required("flower_auth")}
    child = _celery("flower", options, {**environment, **secret}, logs)
    return _member(child, WATCHER, answers(LOOPBACK, settings.flower_port, "/healthcheck"))


def migration(environment: Environment, logs: Path) -> Child:
    """Brings the schema up to date, once."""
    return _python("migrate", ["tracker.cli", "migrate"], environment, logs)


def server(found: Postgres | Valkey) -> Member:
    """An embedded server; the database ends last."""
    return Member(
        found.child, DATABASE if isinstance(found, Postgres) else BROKER, launch=found.launch, answers=found.ready
    )


def answers(host: str, port: int, path: str) -> Callable[[], bool]:
    """Whether a server answers there with anything but a failure of its own (a proxy in the environment plays no part)."""
    host = {"0.0.0.0": LOOPBACK, "::": "::1"}.get(host, host)  # noqa: S104 - compared, not bound

    def ask() -> bool:
        connection = http.client.HTTPConnection(host, port, timeout=ANSWER_LIMIT)
        try:
            connection.request("GET", path)
            return connection.getresponse().status < http.HTTPStatus.INTERNAL_SERVER_ERROR
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return ask


def _simulator(settings: Settings, environment: Environment, logs: Path) -> Member:
    plain = {
        name: value for name, value in environment.items() if not name.startswith("TRACKER_")
    }  # it needs no secret of ours
    child = _python("simulator", ["tracker.simulator", "--port", str(settings.simulator_port)], plain, logs)
    return _member(child, WATCHER, answers(LOOPBACK, settings.simulator_port, "/"))


def _worker(queue: str, size: int, level: str, environment: Environment, logs: Path) -> Child:
    # Gossip and mingle let workers talk among themselves; nothing here needs it, and it costs messages and seconds at the start.
    options = [
        "-Q",
        queue,
        "-n",
        f"{queue}@%h",
        "-P",
        "prefork",
        "-c",
        str(size),
        "--without-gossip",
        "--without-mingle",
        level,
    ]
    tuned = {"GLIBC_TUNABLES": HUGE_PAGES, **environment} if queue == "poll" else environment
    return _celery("worker", options, tuned, logs, name=f"worker-{queue}")


def _celery(command: str, options: Sequence[str], environment: Environment, logs: Path, name: str = "") -> Child:
    return _python(name or command, ["celery", "-A", "workers.app", command, *options], environment, logs)


def _python(name: str, arguments: Sequence[str], environment: Environment, logs: Path) -> Child:
    # None of them needs time when the supervisor is gone: what they were doing is claimed in the database and taken up again.
    return Child(
        name, [sys.executable, "-m", *arguments], environment=environment, log=logs / f"{name}.log", directory=PROJECT,
        orphan_signal=signal.SIGKILL, grace=GRACE,
    )  # fmt: skip


def _member(child: Child, stage: int, ready: Callable[[], bool] | None = None) -> Member:
    return Member(child, stage, launch=child.launch, answers=ready)
