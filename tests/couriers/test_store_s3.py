"""Object stores for real: against a local S3 server, with a proxy in between that breaks connections."""

from __future__ import annotations

import hashlib
import random
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.couriers import s3
from tests.couriers.proxy import FaultProxy
from tracker.couriers import multiparts
from tracker.couriers.store import PART, ArtifactStore, StorageError, store_at

FILM = random.Random(3).randbytes(3 * PART + 12_345)


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    yield from s3.running()


@pytest.fixture
def proxy(server: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with FaultProxy(server) as between:
        for name, value in {**s3.KEYS, "AWS_ENDPOINT": between.url}.items():
            monkeypatch.setenv(name, value)
        yield between


@pytest.fixture
def store(proxy: FaultProxy, tmp_path: Path) -> ArtifactStore:
    return store_at(f"s3://{s3.BUCKET}/{tmp_path.name}", tmp_path / "spool")


def spooled(store: ArtifactStore, content: bytes = FILM) -> Path:
    partial = store.spool.path(".film.1.part")
    partial.write_bytes(content)
    return partial


def test_a_large_file_goes_up_in_parts_and_comes_back(store, server):
    partial = spooled(store)
    store.put_file("a/film.mp4", partial, media_type="video/mp4")
    assert not partial.exists()
    head = store.head("a/film.mp4")
    assert head.size == len(FILM)
    assert head.etag.rstrip('"').endswith("-4"), "four parts"
    assert b"".join(store.read("a/film.mp4", 5, PART + 5)) == FILM[5 : PART + 5]
    assert hashlib.sha256(b"".join(store.read("a/film.mp4"))).digest() == hashlib.sha256(FILM).digest()
    assert [found.key for found in store.list()] == ["a/film.mp4"]
    assert s3.unfinished(server) == 0
    store.delete("a/film.mp4")
    assert store.head("a/film.mp4") is None


def test_a_signed_link_needs_no_key_and_is_for_one_object(store):
    store.put_file("a/film.mp4", spooled(store, b"small"), media_type="video/mp4")
    with urllib.request.urlopen(store.signed_url("a/film.mp4", 60), timeout=10) as answer:
        assert answer.read() == b"small"
        assert answer.headers["content-type"] == "video/mp4"


def test_connections_that_break_are_taken_up_again(store, proxy):
    proxy.cut_after, proxy.cuts_left = PART // 2, 3  # in the middle of a part
    store.put_file("a/film.mp4", spooled(store), media_type="video/mp4")
    assert proxy.cuts == 3
    assert b"".join(store.read("a/film.mp4")) == FILM


def test_bytes_that_turn_out_wrong_leave_neither_object_nor_upload(store, server):
    def breaking() -> Iterator[bytes]:
        for at in range(0, 2 * PART, PART // 2):
            yield FILM[at : at + PART // 2]
        raise ValueError("the rest never came")

    with pytest.raises(ValueError, match="the rest never came"):
        store.put_stream("a/film.mp4", breaking(), media_type="video/mp4")
    assert store.head("a/film.mp4") is None
    assert s3.unfinished(server) == 0


def test_a_store_that_is_away_says_so_without_its_keys(store, proxy, monkeypatch, tmp_path):
    proxy.refusing = True
    monkeypatch.setattr("tracker.couriers.store.RETRIES", {"max_retries": 1})
    partial = spooled(store, b"small")
    with pytest.raises(StorageError) as caught:
        store.put_file("a/film.mp4", partial, media_type="video/mp4")
    assert "Signature" not in str(caught.value)
    assert partial.exists(), "what was fetched stays"


def test_uploads_of_killed_workers_are_aborted_once_they_are_old(store, server, proxy, tmp_path):
    for name in ("old%20one.mp4", "other.mp4"):
        s3.call(server, "POST", f"/{s3.BUCKET}/{tmp_path.name}/{name}?uploads")
    s3.call(server, "POST", f"/{s3.BUCKET}/elsewhere/theirs.mp4?uploads")
    bucket = multiparts.bucket_of(store.url, {**s3.KEYS, "AWS_ENDPOINT": proxy.url})
    assert bucket is not None
    assert " key=" not in repr(bucket)
    began = datetime(2010, 11, 10, 20, 48, 33, tzinfo=UTC)  # of every upload, as this server has it
    assert multiparts.abort_unfinished(bucket, timedelta(days=1), began + timedelta(hours=23)) == 0
    assert multiparts.abort_unfinished(bucket, timedelta(days=1), began + timedelta(hours=25)) == 2
    assert s3.unfinished(server) == 1, "what is not below our prefix is not ours"


def test_the_signature_is_the_one_of_the_documentation():
    """ "GET Bucket Lifecycle" of AWS's examples for Signature Version 4 in the Authorization header."""
    bucket = multiparts.Bucket(
        "https://examplebucket.s3.amazonaws.com", "b", "", "us-east-1", "AKIAIOSFODNN7EXAMPLE",
        "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None,
    )  # fmt: skip
    signed = multiparts._signed(bucket, "GET", "/", "lifecycle=", datetime(2013, 5, 24, tzinfo=UTC))
    assert signed["Authorization"].endswith("fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543")


def test_without_fixed_keys_nothing_is_listed():
    assert multiparts.bucket_of("s3://bucket/x", {}) is None
    assert multiparts.bucket_of("gs://bucket/x", dict(s3.KEYS)) is None
