"""Copies into an object store: spooled and uploaded, straight through when the disk is too small, served by a signed link."""

from __future__ import annotations

import threading
import urllib.request
from collections.abc import Iterator

import pytest

from tests.couriers import s3
from tests.couriers.files import FILM, SHA, Files
from tests.couriers.proxy import FaultProxy
from tests.net import hostile
from tests.services.copying import Ground, ground, video
from tracker import wiring
from tracker.couriers.download import Limits
from tracker.couriers.store import PART, store_at

LARGE = FILM[:64] + bytes(2 * PART)


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    yield from s3.running()


@pytest.fixture
def between(server: int) -> Iterator[FaultProxy]:
    with FaultProxy(server) as made:
        yield made


@pytest.fixture
def copies(services: wiring.Services, between: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> Ground:
    for name, value in {**s3.KEYS, "AWS_ENDPOINT": between.url}.items():
        monkeypatch.setenv(name, value)
    made = ground(services)
    made.store = store_at(f"s3://{s3.BUCKET}/p", services.settings.home / "spool")
    return made


def test_spooled_then_uploaded_with_its_note(copies):
    with hostile.serving(Files(cut=100_000)) as server:
        g = copies.completed(video(server))
        row = copies.until_settled(copies.worker(), g)
    assert (row.state, row.sha256) == ("stored", SHA)
    assert b"".join(copies.store.read(row.object_key)) == FILM
    assert copies.store.head(row.object_key + ".json") is not None
    assert copies.partials() == []
    with urllib.request.urlopen(copies.store.signed_url(row.object_key, 60), timeout=10) as answer:
        assert answer.read() == FILM


def test_straight_through_when_the_disk_has_no_room(copies):
    with hostile.serving(Files(content=LARGE)) as server:
        g = copies.completed(video(server))
        copies.worker(limits=Limits(reserve=2**60)).fetch_due()
    row = copies.row(g)
    assert (row.state, row.size) == ("stored", len(LARGE))
    assert copies.services.health.stopped() == {}
    assert b"".join(copies.store.read(row.object_key)) == LARGE
    assert copies.partials() == []


def test_straight_through_and_cut_leaves_nothing(copies, server):
    files = Files(content=LARGE, cut=PART + 1000)
    with hostile.serving(files) as cutting:
        g = copies.completed(video(cutting), task="cut")
        worker = copies.worker(limits=Limits(reserve=2**60))
        worker.fetch_due()
        row = copies.row(g)
        assert (row.state, row.error["code"], s3.unfinished(server)) == ("pending", "truncated", 0)
        files.cut = None
        assert copies.until_settled(worker, g).state == "stored"


def test_an_order_to_stop_ends_an_upload_cleanly_and_another_worker_goes_on(copies, server, between):
    content = FILM[:64] + bytes(6 * PART)
    files, worker = Files(content=content), copies.worker()
    between.cut_after = PART
    between.flowing.clear()
    with hostile.serving(files) as source:
        g = copies.completed(video(source))
        working = threading.Thread(target=worker.fetch_due)
        working.start()
        assert between.standing.wait(30), "the upload is in the middle"
        worker.stop()
        between.flowing.set()
        working.join(30)
        row = copies.row(g)
        assert (row.state, row.lease_until, row.attempts, s3.unfinished(server)) == ("pending", None, 0, 0)
        assert copies.until_settled(copies.worker(), g).state == "stored"
    assert files.served == len(content), "only the way into the store was gone again"
    assert copies.partials() == []


def test_an_upload_that_hangs_does_not_keep_a_worker_from_its_end(copies, between, monkeypatch):
    monkeypatch.setattr("tracker.services.downloading.LET_GO", 0.5)
    between.cut_after = PART
    between.flowing.clear()
    with hostile.serving(Files(content=LARGE)) as source:
        g = copies.completed(video(source))
        worker = copies.worker()
        working = threading.Thread(target=worker.fetch_due)
        working.start()
        assert between.standing.wait(30)
        worker.stop()
        working.join(5)
        assert not working.is_alive()
        row = copies.row(g)
        assert (row.state, row.lease_until, row.attempts) == ("pending", None, 0)
        between.flowing.set()
        assert copies.until_settled(copies.worker(), g).state == "stored"
