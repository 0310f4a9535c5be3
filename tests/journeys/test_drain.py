"""SIGTERM in the middle of a batch, a webhook, a download and an upload: the worker ends in time by itself, and nothing is lost.

Nothing is done twice either, unless the other side hangs.
"""

from __future__ import annotations

import hashlib
import time
import urllib.request
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from tests.couriers import s3
from tests.couriers.proxy import FaultProxy
from tracker import wiring
from tracker.couriers.store import PART
from tracker.embedded.roster import GRACE
from tracker.services.forms import RegistrationForm

from .conftest import Receiver, Simulator, Workers, until

HANGS = 60.0
"""Seconds: longer than any deadline."""


@pytest.fixture(scope="module")
def bucket() -> Iterator[int]:
    yield from s3.running()


def _register(services: wiring.Services, project: UUID, receiver: Receiver, task: str, **fields: Any) -> UUID:
    form = RegistrationForm(provider="luma", task_id=task, webhook_url=receiver.url, **fields)
    return services.registration.register(project, form).generation.id


def _count(services: wiring.Services, query: str) -> int:
    with services.database.transaction() as tx:
        return int(tx.execute(text(f"SELECT count(*) FROM {query}")).scalar_one())


def _terminate(workers: Workers, name: str) -> float:
    """SIGTERM to the main process alone, as init systems send it; returns the seconds that the end took."""
    return _terminate_all(workers, name)


def _terminate_all(workers: Workers, *names: str) -> float:
    processes, began = [workers.running.pop(name) for name in names], time.monotonic()
    for process in processes:
        process.terminate()
    for process in processes:
        assert process.wait(max(0.1, began + GRACE - time.monotonic())) == 0
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


def test_who_hangs_keeps_no_worker_from_its_end(  # noqa: PLR0917 - what it needs
    services: wiring.Services, simulator: Simulator, receiver: Receiver, workers: Workers, account: UUID, bucket: int
) -> None:
    with FaultProxy(bucket) as store:
        store.cut_after = PART
        store.flowing.clear()
        workers.kill("download")
        variables = {**s3.KEYS, "AWS_ENDPOINT": store.url, "TRACKER_ARTIFACTS_URL": f"s3://{s3.BUCKET}/drained"}
        workers.environment.update(variables)
        workers.start("download")
        workers.ready()
        receiver.delay = HANGS
        uploaded = simulator.call("generations", {"misbehaviour": "bigfile", "queue": 0, "duration": 0})["id"]
        first = _register(services, account, receiver, uploaded, download=["video"])
        until(lambda: _count(services, "deliveries WHERE lease_until > now()"), 15, "the receiver hangs")
        until(store.standing.is_set, 15, "the store hangs")
        mute = simulator.call("generations", {"misbehaviour": "hang_1x", "queue": 0, "duration": 0})["id"]
        second = _register(services, account, receiver, mute)
        until(lambda: simulator.call("stats")["in_flight"], 15, "the relay hangs")

        took = _terminate_all(workers, "poll", "webhook", "download")

        assert took < GRACE, "all by themselves"
        assert _count(services, "artifacts WHERE state = 'pending' AND lease_until IS NULL AND attempts = 0") == 1
        assert _count(services, "deliveries WHERE state = 'pending' AND attempts = 0") == 1
        store.flowing.set()
        receiver.delay = 0.0
        with services.database.transaction() as tx:  # as if the leases had lapsed
            tx.execute(text("UPDATE deliveries SET due_at = now(), lease_until = NULL WHERE state = 'pending'"))
        for name in ("poll", "webhook", "download"):
            workers.start(name)
        until(lambda: services.generations.get(account, second).state == "completed", 30, "it was asked again")
        until(lambda: services.generations.get(account, first).artifacts[0].state == "stored", 30, "and uploaded")
        until(lambda: not _count(services, "deliveries WHERE state = 'pending'"), 30, "and delivered")
    assert simulator.call(f"generations/{uploaded}")["fetches"]["video.mp4"] == 2, (
        "the second one to learn that it is whole"
    )
    g = services.generations.get(account, first)
    stored = services.artifacts.find(account, first, "video", 0)
    for url in (g.outputs[0].url, f"http://127.0.0.1:{bucket}/{s3.BUCKET}/drained/{stored.object_key}"):
        with urllib.request.urlopen(url, timeout=30) as answer:
            assert hashlib.file_digest(answer, "sha256").hexdigest() == g.artifacts[0].sha256
