"""The client against the real API in a process of its own, which can be killed and started again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest

from tracker import wiring
from tracker.client import Tracker
from tracker.core import ids
from tracker.core.generation import Output, State
from tracker.core.lifecycle import Decision
from tracker.embedded.environment import complete
from tracker.embedded.ports import free_port, release
from tracker.services import steps
from tracker.services.forms import CredentialForm
from tracker.settings import Settings
from tracker.store import db, generations, outbox, schedule

ROOT = Path(__file__).parents[2]


@dataclass
class Api:
    """`python -m tracker.api`, and a way to let a provider have said something."""

    settings: Settings
    services: wiring.Services
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    @property
    def url(self) -> str:
        return self.settings.base_url

    @property
    def key(self) -> str:
        return self.settings.required("bootstrap_api_key")

    def start(self) -> None:
        base = {name: value for name, value in os.environ.items() if not name.startswith(("TRACKER_", "PG"))}
        environment = complete(self.settings, base, own_database=False, simulator_url=None) | {"PYTHONPATH": str(ROOT)}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tracker.api"], env=environment, cwd=self.log.parent, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 40
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.url}/readyz", timeout=5).close()
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.05)
            else:
                return
        raise AssertionError(self.log.read_text())

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(10)

    def complete(self, public_id: str) -> None:
        """Let the provider have said that it is done, as a poll worker records it."""
        key = ids.parse("gen", public_id)
        assert isinstance(key, UUID)
        with self.services.database.transaction() as tx:
            now = db.now(tx)
            [g] = generations.lock(tx, [key])
            outputs = (Output("video", 0, "http://127.0.0.1:9/video.mp4"),)
            decision = Decision(to=State.COMPLETED, provider_status="completed", outputs=outputs, over=True)
            step = steps.observed(g, decision, now, self.url)
            generations.rewrite(tx, [step.generation], now)
            schedule.leave(tx, [key])
            assert step.event is not None
            outbox.publish(tx, [(step.event, step.generation)], now)
        self.services.bell.changed([str(key)])


@pytest.fixture
def api(settings: Settings, tmp_path: Path) -> Iterator[Api]:
    port = free_port(18100)
    moved = settings.changed(api_port=port)
    services = wiring.build(moved)
    services.keys.ensure_bootstrap(moved.required("bootstrap_api_key"))
    form = CredentialForm(providers=["luma"], base_url="http://127.0.0.1:9", api_key="key")
    services.credentials.put(services.keys.project().project_id, "default", form)
    running = Api(moved, services, tmp_path / "api.log")
    running.start()
    yield running
    running.kill()
    services.close()
    release(port)


@pytest.fixture
def tracker(api: Api) -> Iterator[Tracker]:
    with Tracker(api.url, api.key) as found:
        yield found
