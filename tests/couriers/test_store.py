"""The artifact store on a local folder (object stores are tested against a real S3 server elsewhere)."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tracker.couriers import sniff
from tracker.couriers.store import FolderStore, StorageError, store_at


@pytest.fixture
def store(tmp_path):
    return store_at(f"file://{tmp_path}/artifacts", tmp_path)


def put(store, key: str, content: bytes):
    partial = store.spool.path(".film.1.part")
    partial.write_bytes(content)
    store.put_file(key, partial, media_type="video/mp4")
    return partial


def test_a_file_is_put_by_rename_and_read_back(store, tmp_path):
    partial = put(store, "p/luma/gen_1/video-0.mp4", b"0123456789")
    assert isinstance(store, FolderStore)
    assert partial.parent == tmp_path / "artifacts/.partial"
    assert not partial.exists()
    assert b"".join(store.read("p/luma/gen_1/video-0.mp4")) == b"0123456789"
    assert b"".join(store.read("p/luma/gen_1/video-0.mp4", 2, 5)) == b"234"
    assert b"".join(store.read("p/luma/gen_1/video-0.mp4", 7)) == b"789"
    assert b"".join(store.read("p/luma/gen_1/video-0.mp4", 0, 1)) == b"0"
    head = store.head("p/luma/gen_1/video-0.mp4")
    assert (head.key, head.size) == ("p/luma/gen_1/video-0.mp4", 10)
    assert head.etag


def test_putting_again_replaces(store):
    put(store, "a/b.mp4", b"old")
    put(store, "a/b.mp4", b"new!")
    assert b"".join(store.read("a/b.mp4")) == b"new!"


def test_what_is_missing_or_deleted(store):
    assert store.head("a/none.mp4") is None
    with pytest.raises(FileNotFoundError):
        list(store.read("a/none.mp4"))
    put(store, "a/b.mp4", b"x")
    store.delete("a/b.mp4")
    store.delete("a/b.mp4")
    assert store.head("a/b.mp4") is None


def test_partial_files_are_never_listed(store):
    put(store, "a/b.mp4", b"x")
    store.spool.path(".film.2.part").write_bytes(b"half")
    assert [found.key for found in store.list()] == ["a/b.mp4"]
    assert [found.key for found in store.list("a")] == ["a/b.mp4"]
    assert list(store.list("b")) == []


@pytest.mark.parametrize(
    "key", ["../x", "/etc/passwd", "a//b", "a/../../x", "", ".", "a/", "a\\b", "a\0b", "a/.b.part"]
)
def test_keys_cannot_leave_the_folder(store, key):
    for use in (
        lambda: store.head(key),
        lambda: store.delete(key),
        lambda: list(store.read(key)),
    ):
        with pytest.raises(ValueError):
            use()


def test_a_file_that_cannot_be_stored_says_so(store, tmp_path):
    with pytest.raises(StorageError, match=r"a/b\.mp4 could not be stored"):
        store.put_file("a/b.mp4", tmp_path / "absent", media_type="video/mp4")
    assert store.head("a/b.mp4") is None


def test_a_local_folder_signs_no_links(store):
    assert store.signed_url("a/b.mp4", 60) is None


def test_object_stores_sign_links_and_spool_aside(tmp_path, monkeypatch):
    for name, value in {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "eu-west-1"}.items():
        monkeypatch.setenv(name, value)
    store = store_at("s3://bucket/prefix", tmp_path)
    assert store.spool.path(".b.1.part") == tmp_path / ".b.1.part"
    url = store.signed_url("a/b.mp4", 60)
    assert "/prefix/a/b.mp4?" in url
    assert "X-Amz-Expires=60" in url


AFTER_FORK = """
import os, pathlib, sys
from tracker.couriers.store import store_at

store = store_at(f"file://{sys.argv[1]}", pathlib.Path(sys.argv[1]))
for _ in range(2):  # the first child uses a store that was only made here, the second one that was used here
    if os.fork() == 0:
        try:
            print("found", store.head("a/none.mp4"), flush=True)
        except Exception as wrong:
            print(wrong, flush=True)
        os._exit(0)
    os.wait()
    store.head("a/none.mp4")
"""


def test_a_store_works_only_in_the_process_that_opened_it(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", AFTER_FORK, str(tmp_path)], capture_output=True, text=True, timeout=30, check=True
    )
    made, used = done.stdout.splitlines()
    assert made == "found None"
    assert "make one after the fork" in used


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (b"\0\0\0\x20ftypisom\0\0\2\0", "video/mp4"),
        (b"\0\0\0\x14ftypqt  ", "video/quicktime"),
        (b"\0\0\0\x08wide\0\0", "video/quicktime"),
        (b"\0\0\0\x1cftypM4A ", "audio/mp4"),
        (b"\x1aE\xdf\xa3\x01\0", "video/webm"),
        (b"ID3\x04\0", "audio/mpeg"),
        (b"\xff\xfb\x90\x64", "audio/mpeg"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "audio/wav"),
        (b"RIFF\x24\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\x24\0\0\0AVI ", None),
        (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n\0", "image/png"),
        (b"GIF89a", "image/gif"),
        (b"<html>", None),
        (b"\xff\xfe<\0h\0", None),
        (b"\xff", None),
        (b"", None),
    ],
)
def test_sniffing(first, kind):
    assert sniff.media_type(first) == kind
