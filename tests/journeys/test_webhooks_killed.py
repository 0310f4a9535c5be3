"""SIGKILL to the sender between the receiver's 2xx and our commit, again and again: every event arrives, and what arrives twice has one id.

The record is held up by a lock, so that each kill finds answered deliveries that nobody wrote down. `make chaos` does it 20 times.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from standardwebhooks.webhooks import Webhook

from tracker import wiring
from tracker.core import ids
from tracker.services.forms import CredentialForm, EndpointForm, RegistrationForm
from tracker.store.sending import LEASE

from .conftest import ROOT, until

KILLS = int(os.environ.get("TRACKER_TEST_KILLS", "4"))
ENDPOINTS, EVENTS = 5, 4
AT_LEAST = 10

CUT_OFF = text(
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid))"
)

SENDER = """
import sys
from datetime import UTC, datetime, timedelta
from tracker import wiring
from tracker.settings import attach, load
services = wiring.build(attach(load()))
services.database.ahead = timedelta(seconds=float(sys.argv[1]))
print(services.delivery.send_due(), flush=True)
services.close()
"""


class Answered:
    """What arrived at each path, in order, once it was answered. While it gathers, it answers when so many are waiting for it."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, bytes, dict[str, str]]] = []
        self.url = ""
        self._waiting, self._enough = 0, threading.Event()

    def gather(self) -> None:
        self._waiting = 0
        self._enough.clear()

    def wait(self) -> None:
        self._waiting += 1
        if self._waiting >= AT_LEAST:
            self._enough.set()
        self._enough.wait(30)

    def stop_gathering(self) -> None:
        self._waiting = 10**6
        self._enough.set()


@pytest.fixture
def answered() -> Iterator[Answered]:
    kept = Answered()

    class Incoming(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            kept.wait()
            self.wfile.write(b"HTTP/1.1 204 No Content\r\n\r\n")
            headers = {k.lower(): v for k, v in self.headers.items()}
            kept.got.append((self.path, headers["webhook-id"], body, headers))

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Incoming)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    kept.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield kept
    server.shutdown()
    server.server_close()
    thread.join()


def sender(services: wiring.Services) -> subprocess.Popen[bytes]:
    settings = services.settings
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TRACKER_")} | {
        "TRACKER_HOME": str(settings.home),
        "TRACKER_DATABASE_URL": settings.required("database_url"),
        "TRACKER_REDIS_URL": settings.required("redis_url"),
        "TRACKER_SECRET_KEYS": settings.required("secret_keys"),
        "TRACKER_BOOTSTRAP_API_KEY": settings.required("bootstrap_api_key"),
        "TRACKER_FLOWER_AUTH": "flower:flower",
        "PYTHONPATH": str(ROOT),
    }
    ahead = str(services.database.ahead.total_seconds())
    return subprocess.Popen([sys.executable, "-c", SENDER, ahead], env=environment, cwd=settings.home)


def make_events(services: wiring.Services, project: UUID, round_: int) -> list[str]:
    made = []
    for n in range(EVENTS):
        form = RegistrationForm(provider="luma", task_id=f"r{round_}-{n}")
        g = services.registration.register(project, form).generation
        services.generations.cancel(project, g.id)
        made.append(ids.public("gen", g.id))
    return made


@pytest.mark.timeout(900)
def test_nothing_is_lost_when_the_sender_dies_with_answers_in_its_hands(
    services: wiring.Services, answered: Answered
) -> None:
    Path(services.settings.home).mkdir(exist_ok=True)
    project = services.keys.project().project_id
    services.credentials.put(
        project, "default", CredentialForm(providers=["luma"], base_url="http://127.0.0.1:9", api_key="k")
    )
    secrets = {}
    for n in range(ENDPOINTS):
        form = EndpointForm(url=f"{answered.url}/{n}", events=["generation.cancelled"])
        secrets[f"/{n}"] = services.endpoints.secret(project, services.endpoints.create(project, form).id)
    wanted: list[str] = []
    killed = 0
    for round_ in range(KILLS):
        wanted += make_events(services, project, round_)
        with services.database.transaction() as tx:
            answered.gather()
            before = len(answered.got)
            recorded = tx.execute(text("SELECT count(*) FROM attempts")).scalar_one()
            tx.execute(text("LOCK TABLE attempts IN EXCLUSIVE MODE"))
            child = sender(services)
            until(lambda b=before: len(answered.got) >= b + AT_LEAST, 30, "the receiver answered")
            os.kill(child.pid, signal.SIGKILL)
            child.wait(10)
            unrecorded = len(answered.got) - before
            # The server has its record already and would carry it out once the lock is gone: it must not have come that far.
            until(lambda tx=tx: tx.execute(CUT_OFF).scalar_one() == 0, 10, "nobody waits for the lock any more")
        with services.database.transaction() as tx:
            assert tx.execute(text("SELECT count(*) FROM attempts")).scalar_one() == recorded
        assert unrecorded >= AT_LEAST
        killed += unrecorded
        services.database.ahead += LEASE + timedelta(seconds=1)

    answered.stop_gathering()
    last = sender(services)
    assert last.wait(60) == 0
    arrived = defaultdict(list)
    for path, webhook_id, body, headers in answered.got:
        at = datetime.fromtimestamp(int(headers["webhook-timestamp"]), UTC)
        assert Webhook(secrets[path]).sign(webhook_id, at, body.decode()) == headers["webhook-signature"]
        arrived[path].append((webhook_id, body))
    everything = {webhook_id for got in arrived.values() for webhook_id, _ in got}
    assert len(everything) == len(wanted) == KILLS * EVENTS
    for path in secrets:
        assert {webhook_id for webhook_id, _ in arrived[path]} == everything, "every event reached every endpoint"
        assert len(set(arrived[path])) == len(everything), "a duplicate is the same to the byte"
    twice = len(answered.got) - ENDPOINTS * len(everything)
    assert twice >= killed, "what nobody wrote down came again"
    with services.database.transaction() as tx:
        states = tx.execute(text("SELECT DISTINCT state FROM deliveries")).scalars().all()
    assert states == ["delivered"]
