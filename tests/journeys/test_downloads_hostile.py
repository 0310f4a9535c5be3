"""Every way in which the simulator's files misbehave, end to end through real workers: right bytes, or the reason."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.journeys.conftest import Simulator, Workers, until
from tracker import wiring
from tracker.services.forms import RegistrationForm
from tracker.settings import Settings
from tracker.simulator import files
from tracker.store.generations import Filters

MENDS = (
    "expire", "cutfile", "resetfile", "slowfile", "file500", "filepage", "emptyfile", "changing", "norange", "nolength",
    "bigfile", "redirectfile", "nodownload",
)  # fmt: skip
NEVER = "file404"


@pytest.fixture
def few(settings: Settings, services: wiring.Services, tmp_path: Any) -> Any:
    logs = tmp_path / "logs"
    logs.mkdir()
    started = Workers(settings, logs)
    for name in ("default", "poll", "download", "beat"):
        started.start(name)
    yield started
    started.stop()
    print(started.said())


@pytest.mark.timeout(300)
def test_every_misbehaviour_of_the_files(
    services: wiring.Services, simulator: Simulator, receiver: Any, account: UUID, few: Workers
) -> None:
    tasks = {name: _created(simulator, name) for name in (*MENDS, NEVER)}
    for task in tasks.values():
        services.registration.register(account, RegistrationForm(provider="luma", task_id=task, download=["video"]))

    def settled() -> dict[str, Any]:
        _hasten(services)
        found, _ = services.generations.page(account, Filters(), 200)
        by_task = {g.task_id: g.artifacts[0] for g in found if g.artifacts}
        return by_task if len(by_task) == len(tasks) and all(a.state != "pending" for a in by_task.values()) else {}

    copies = until(settled, 150, "every copy is stored or failed")
    for name in MENDS:
        copy = copies[tasks[name]]
        assert copy.state == "stored", (name, copy.error)
        if name != "changing":  # there every answer has other bytes
            truth = files.content(tasks[name], "video.mp4", big=name == "bigfile")
            assert copy.sha256 == hashlib.sha256(truth).hexdigest(), name
    gone = copies[tasks[NEVER]]
    assert (gone.state, gone.error["code"]) == ("failed", "expired_link")
    assert [v.wrong for v in services.artifacts.verify(account) if v.wrong] == []
    assert not list(services.settings.home.rglob("*.part"))


def _created(simulator: Simulator, name: str) -> str:
    strength = "_3s" if name in {"expire", "slowfile"} else ""
    return str(simulator.call("generations", {"queue": 0, "duration": 1, "misbehaviour": name + strength})["id"])


def _hasten(services: wiring.Services) -> None:
    """Waits between tries are not what is tested here."""
    with services.database.transaction() as tx:
        tx.execute(
            text(
                "UPDATE artifacts SET due_at = now() WHERE state = 'pending' AND lease_until IS NULL AND due_at > now()"
            )
        )
