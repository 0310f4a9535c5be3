"""The files behind the links: real, unique, in ranges, and every way a download goes wrong."""

from __future__ import annotations

import hashlib
import time

import pytest
import requests

from tracker.simulator import files
from tracker.simulator.misbehaviour import MISBEHAVIOURS, Scope


def boxes(mp4: bytes) -> list[tuple[bytes, bytes]]:
    """The top-level boxes of an ISO-BMFF file; fails unless they fill it exactly."""
    found, at = [], 0
    while at < len(mp4):
        size = int.from_bytes(mp4[at : at + 4])
        assert size >= 8
        found.append((mp4[at + 4 : at + 8], mp4[at + 8 : at + size]))
        at += size
    assert at == len(mp4)
    return found


def links(relay, task_id):
    found = relay.query(task_id).json()
    return [found["video"]["url"], found["video_raw"]["url"], found["thumbnail"]["url"], found["last_frame"]["url"]]


def video(relay, **wish):
    return links(relay, relay.create(duration=0, **wish))[0]


def test_every_link_leads_to_a_real_file_like_no_other(relay):
    ids, digests = [relay.create(duration=0) for _ in range(3)], set()
    for task_id in ids:
        told = relay.get(f"/simulator/generations/{task_id}").json()["files"]
        for url in links(relay, task_id):
            answer = relay.get(url, headers={})
            digest = hashlib.sha256(answer.content).hexdigest()
            assert digest == told[url.rsplit("/", 1)[1]]
            digests.add(digest)
            assert int(answer.headers["content-length"]) == len(answer.content) < 150_000
            if url.endswith(".mp4"):
                assert answer.headers["content-type"] == "video/mp4"
                assert [kind for kind, _ in boxes(answer.content)] == [b"ftyp", b"moov", b"free", b"mdat", b"free"]
                assert task_id.encode() in boxes(answer.content)[-1][1]
            else:
                assert answer.headers["content-type"] == "image/jpeg"
                assert answer.content.startswith(b"\xff\xd8\xff\xfe")
                assert answer.content.endswith(b"\xff\xd9")
    assert len(digests) == 12


def test_the_clip_is_what_answers_say_of_it():
    moov = dict(boxes(files.content("x", "video.mp4")))[b"moov"]
    tracks = moov[moov.index(b"tkhd") :]
    assert int.from_bytes(tracks[80:82]) == files.WIDTH
    assert int.from_bytes(tracks[84:86]) == files.HEIGHT
    header = moov[moov.index(b"mvhd") + 4 :]
    assert int.from_bytes(header[16:20]) / int.from_bytes(header[12:16]) == pytest.approx(files.DURATION, abs=0.001)
    assert b"avc1" in moov


def test_ranges(relay):
    url = video(relay)
    whole = relay.get(url)
    size, tag = len(whole.content), whole.headers["etag"]
    assert whole.headers["accept-ranges"] == "bytes"
    for asked, start, end in (
        ("0-99", 0, 100),
        ("100-", 100, size),
        ("-50", size - 50, size),
        (f"5-{size * 2}", 5, size),
    ):
        part = relay.get(url, headers={"Range": f"bytes={asked}"})
        assert part.status_code == 206
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert part.content == whole.content[start:end]
    for asked in (f"{size}-", "-0"):
        refused = relay.get(url, headers={"Range": f"bytes={asked}"})
        assert (refused.status_code, refused.headers["content-range"]) == (416, f"bytes */{size}")
    for asked in ("bytes=5-1", "bytes=0-1,5-9", "lines=1-2", "bytes=-"):
        assert relay.get(url, headers={"Range": asked}).status_code == 200
    assert relay.get(url, headers={"Range": "bytes=10-", "If-Range": tag}).status_code == 206
    assert relay.get(url, headers={"Range": "bytes=10-", "If-Range": '"other"'}).content == whole.content
    assert relay.get(url, headers={"If-None-Match": tag}).status_code == 304


def test_head_tells_the_length_and_sends_nothing(relay):
    url = video(relay)
    answer = relay.session.head(url, timeout=5)
    assert (answer.status_code, answer.content) == (200, b"")
    assert int(answer.headers["content-length"]) == len(relay.get(url).content)
    assert relay.raw(url.removeprefix(relay.url), method="HEAD", seconds=0.3)[0].endswith(b"\r\n\r\n")


def test_there_is_no_file_before_the_end_nor_of_strangers(relay):
    task_id = relay.create(duration=100)
    for path in (
        f"/files/{task_id}/video.mp4",
        "/files/nope/video.mp4",
        f"/files/{relay.create(duration=0)}/other.mp4",
    ):
        assert relay.get(path).status_code == 404
    failed = relay.create(duration=0, misbehaviour="failed")
    assert relay.get(f"/files/{failed}/video.mp4").status_code == 404


def test_links_expire_and_asking_again_renews_them(relay):
    task_id = relay.create(duration=0, misbehaviour="expire_60s")
    first = links(relay, task_id)
    assert [relay.get(url).status_code for url in first] == [200] * 4
    relay.advance(61)
    assert [relay.get(url).status_code for url in first] == [403] * 4
    assert [relay.get(url).status_code for url in links(relay, task_id)] == [200] * 4
    assert relay.get(first[0].partition("?")[0]).status_code == 403


def cutfile(relay, url):
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        assert relay.get(url).content


def resetfile(relay, url):
    found, ended = relay.raw(url.removeprefix(relay.url))
    assert ended == "reset"
    assert 30_000 < len(found) < 40_000


def hangfile(relay, url):
    assert relay.raw(url.removeprefix(relay.url), seconds=0.2) == (b"", "open")


def slowfile(relay, url):
    began = time.monotonic()
    assert len(relay.get(url).content) > 60_000
    assert 0.3 < time.monotonic() - began < 5


def file_status(expected, start=b""):
    def check(relay, url):
        answer = relay.get(url)
        assert answer.status_code == expected
        assert answer.content.startswith(start)

    return check


def emptyfile(relay, url):
    answer = relay.get(url)
    assert (answer.status_code, answer.content) == (200, b"")


def changing(relay, url):
    first, second = relay.get(url), relay.get(url)
    assert first.headers["etag"] != second.headers["etag"]
    assert first.content != second.content


def norange(relay, url):
    answer = relay.get(url, headers={"Range": "bytes=10-"})
    assert answer.status_code == 200
    assert "accept-ranges" not in answer.headers


def nolength(relay, url):
    answer = relay.get(url)
    assert "content-length" not in answer.headers
    assert boxes(answer.content)[-1][0] == b"free"


def bigfile(relay, url):
    answer = relay.get(url)
    assert len(answer.content) == 64 * 1024 * 1024
    assert boxes(answer.content)[0][0] == b"ftyp"


def redirectfile(relay, url):
    answer = relay.get(url)
    assert answer.status_code == 302
    assert boxes(relay.get(answer.headers["location"]).content)


DOWNLOADS = {
    "cutfile_1x": cutfile,
    "resetfile_1x": resetfile,
    "hangfile_1x": hangfile,
    "slowfile_0.4s": slowfile,
    "file500_1x": file_status(500),
    "file404": file_status(404),
    "filepage_1x": file_status(200, b"<!DOCTYPE html>"),
    "emptyfile_1x": emptyfile,
    "changing": changing,
    "norange": norange,
    "nolength": nolength,
    "bigfile": bigfile,
    "redirectfile": redirectfile,
}


def test_the_table_above_covers_every_spoilt_download():
    covered = {name.partition("_")[0] for name in DOWNLOADS} | {"expire"}
    assert covered == {name for name, row in MISBEHAVIOURS.items() if row.scope is Scope.FILE}


@pytest.mark.parametrize("name", DOWNLOADS)
def test_a_spoilt_download(relay, name):
    url = video(relay, misbehaviour=name)
    DOWNLOADS[name](relay, url)
    if name.endswith("_1x"):
        assert boxes(relay.get(url).content)


def test_downloads_are_counted_by_file(relay):
    task_id = relay.create(duration=0)
    for url in links(relay, task_id)[:2]:
        relay.get(url)
    assert relay.stats()["fetches"] == {f"{task_id}/video.mp4": 1, f"{task_id}/raw.mp4": 1}
