"""SIGTERM in the middle of a batch, a webhook and a download: the worker ends in time by itself, and nothing is lost or done twice."""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from sqlalchemy import text

from tracker import wiring
from tracker.services.forms import RegistrationForm

from .conftest import Receiver, Simulator, Workers, until

GRACE = 10.0
"""Seconds that `tracker up` and Docker give before they kill."""


def _register(services: wiring.Services, project: UUID, receiver: Receiver, task: str, **fields: Any) -> UUID:
    form = RegistrationForm(provider="luma", task_id=task, webhook_url=receiver.url, **fields)
    return services.registration.register(project, form).generation.id


def _count(services: wiring.Services, query: str) -> int:
    with services.database.transaction() as tx:
        return int(tx.execute(text(f"SELECT count(*) FROM {query}")).scalar_one())


def _terminate(workers: Workers, name: str) -> float:
    """SIGTERM to the main process alone, as init systems send it; returns the seconds that the end took."""
    process, began = workers.running.pop(name), time.monotonic()
    process.terminate()
    assert process.wait(GRACE) == 0
    return time.monotonic() - began


def test_a_batch_in_the_middle_is_answered_and_recorded(
    services: wiring.Services, simulator: Simulator, receiver: Receiver, workers: Workers, account: UUID
) -> None:
    workers.ready()
    task = simulator.call("generations", {"misbehaviour": "slow_1x_3s", "queue": 0, "duration": 0})["id"]
    key = _register(services, account, receiver, task)
    until(lambda: simulator.call("stats")["in_flight"], 10, "the relay was asked and thinks")

    took = _terminate(workers, "poll")

    g = services.generations.get(account, key)
    assert (g.state, g.polls) == ("completed", 1), f"recorded by the worker that was told to end {took:.1f} s before"
    assert _count(services, "flights") == 0


def test_a_webhook_in_the_middle_is_sent_once(
    services: wiring.Services, simulator: Simulator, receiver: Receiver, workers: Workers, account: UUID
) -> None:
    workers.ready()
    receiver.delay = 3.0
    task = simulator.call("generations", {"queue": 0, "duration": 0})["id"]
    key = _register(services, account, receiver, task)
    until(lambda: _count(services, "deliveries WHERE lease_until > now()"), 10, "the webhook is on its way")

    _terminate(workers, "webhook")

    rows, _ = services.deliveries.page(account, None, 10, generation_id=key)
    assert [row.state for row in rows] == ["delivered"]
    assert len(receiver.ids) == 1


def test_a_download_in_the_middle_is_given_back_at_once(
    services: wiring.Services, simulator: Simulator, receiver: Receiver, workers: Workers, account: UUID
) -> None:
    workers.ready()
    task = simulator.call("generations", {"misbehaviour": "slowfile_5s", "queue": 0, "duration": 0})["id"]
    key = _register(services, account, receiver, task, download=["video"])
    until(lambda: _count(services, "artifacts WHERE bytes_done > 0"), 15, "the download is in the middle")

    _terminate(workers, "download")

    assert _count(services, "artifacts WHERE state = 'pending' AND lease_until IS NULL") == 1, (
        "nobody waits for a lease"
    )
    workers.start("download")
    until(lambda: services.generations.get(account, key).artifacts[0].state == "stored", 30, "another went on")
    truth = simulator.call(f"generations/{task}")["files"]["video.mp4"]
    assert services.generations.get(account, key).artifacts[0].sha256 == truth
