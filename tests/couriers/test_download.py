"""Downloads from servers that cut, lie, drip, change their mind or serve something else: right bytes or the right error."""

from __future__ import annotations

import resource

import pytest

from tests.couriers.files import FILM, SHA, Files
from tests.net import hostile
from tracker.core.addresses import Policy
from tracker.couriers import download as downloads
from tracker.couriers.download import DownloadError, Limits, Partial, download
from tracker.net.guard import GuardedSession


@pytest.fixture(scope="module")
def session():
    made = GuardedSession(Policy.of(["127.0.0.0/8", "::1/128"]))
    yield made
    made.close()


def failing(session, url: str, into, **fields) -> DownloadError:
    with pytest.raises(DownloadError) as caught:
        download(session, url, into, **fields)
    return caught.value


def until_done(session, url: str, into):
    resume: Partial | None = None
    for _ in range(40):
        try:
            return download(session, url, into, resume=resume)
        except DownloadError as wrong:
            resume = wrong.partial
    return pytest.fail("never finished")


def answering(answer: bytes, session, into, **fields) -> DownloadError:
    with hostile.serving(hostile.then_closes(answer)) as server:
        return failing(session, server.url, into, **fields)


def test_a_file_arrives_whole_and_verified(session, tmp_path):
    seen: list[tuple[int, int | None]] = []
    begun: list[Partial] = []
    into = tmp_path / ".a.part"
    with hostile.serving(Files()) as server:
        got = download(session, server.url, into, progress=lambda *now: seen.append(now), begun=begun.append)
    assert (got.size, got.sha256, got.media_type, got.etag, got.path) == (len(FILM), SHA, "video/mp4", '"v1"', into)
    assert into.read_bytes() == FILM
    assert seen[-1] == (len(FILM), len(FILM))
    assert begun == [Partial(into, '"v1"', len(FILM))]
    assert b"Accept-Encoding: identity" in server.requests[0]


@pytest.mark.parametrize("cut", [1, 7, 63, 64, 65, 4096, 100_000, 299_999])
def test_resumed_after_every_cut_without_fetching_twice(session, tmp_path, cut):
    files = Files(cut=cut if cut > 10_000 else 20_000 + cut)
    into = tmp_path / ".a.part"
    with hostile.serving(files) as server:
        got = until_done(session, server.url, into)
    assert (got.sha256, into.read_bytes() == FILM) == (SHA, True)
    assert files.served == len(FILM)


@pytest.mark.parametrize("cut", range(0, 80, 3))
def test_a_cut_in_the_first_bytes(session, tmp_path, cut):
    into = tmp_path / ".a.part"
    files = Files(cut=cut)
    with hostile.serving(files) as server:
        wrong = failing(session, server.url, into)
        assert wrong.code == "truncated"
        files.cut = None
        assert download(session, server.url, into, resume=wrong.partial).sha256 == SHA


def test_a_changed_file_is_fetched_anew(session, tmp_path):
    into = tmp_path / ".a.part"
    into.write_bytes(FILM[:1000])
    other = FILM[:12] + b"other" * 1000
    with hostile.serving(Files(content=other, etag='"v2"')) as server:
        got = download(session, server.url, into, resume=Partial(into, '"v1"', len(FILM)))
    assert (got.etag, into.read_bytes()) == ('"v2"', other)


def test_a_server_that_ignores_ranges_starts_over(session, tmp_path):
    into = tmp_path / ".a.part"
    into.write_bytes(b"x" * 1000)
    with hostile.serving(Files(ranges=False)) as server:
        assert download(session, server.url, into, resume=Partial(into, '"v1"', len(FILM))).sha256 == SHA


@pytest.mark.parametrize(
    "lie",
    [
        "bytes 999-300011/300012",
        "bytes 1001-300011/300012",
        "bytes 1000-300011/9",
        "bytes */*",
        "nonsense",
        "bytes 1000-/",
    ],
)
def test_a_wrong_content_range_is_not_trusted(session, tmp_path, lie):
    into = tmp_path / ".a.part"
    into.write_bytes(FILM[:1000])
    with hostile.serving(
        lambda wire, request: Files(extra={"Content-Range": lie} if b"\r\nRange:" in request else {})(wire, request)
    ) as server:
        assert download(session, server.url, into, resume=Partial(into, '"v1"', len(FILM))).sha256 == SHA
    assert len(server.requests) == 2


def test_a_partial_file_that_was_complete_after_all(session, tmp_path):
    into = tmp_path / ".a.part"
    into.write_bytes(FILM)
    files = Files()
    with hostile.serving(files) as server:
        assert download(session, server.url, into, resume=Partial(into, '"v1"', len(FILM))).sha256 == SHA
    assert files.served == 0


def test_416_with_another_size_starts_over(session, tmp_path):
    into = tmp_path / ".a.part"
    into.write_bytes(FILM + b"too much")
    with hostile.serving(Files()) as server:
        assert download(session, server.url, into, resume=Partial(into, '"v1"')).sha256 == SHA


def test_without_a_strong_etag_nothing_is_kept(session, tmp_path):
    into = tmp_path / ".a.part"
    for etag in (None, 'W/"v1"'):
        with hostile.serving(Files(etag=etag, cut=1000)) as server:
            wrong = failing(session, server.url, into)
        assert (wrong.code, wrong.partial, into.exists()) == ("truncated", None, False)


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_an_expired_link_keeps_what_is_there(session, tmp_path, status):
    into = tmp_path / ".a.part"
    into.write_bytes(FILM[:1000])
    resume = Partial(into, '"v1"', len(FILM))
    wrong = answering(
        b'HTTP/1.1 %d No\r\nETag: "error"\r\nContent-Length: 2\r\n\r\nno' % status, session, into, resume=resume
    )
    assert (wrong.code, wrong.status, wrong.partial) == ("expired_link", status, resume)
    assert into.read_bytes() == FILM[:1000]


@pytest.mark.parametrize("status", [204, 206, 300, 416, 429, 500, 503])
def test_other_statuses(session, tmp_path, status):
    wrong = answering(b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status, session, tmp_path / ".a.part")
    assert (wrong.code, wrong.status) == ("http_status", status)


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html><html>no",
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        b'{"error": "expired"}',
        b"",
        b"\0" * 500,
        b"  \n<html>" + b" " * 500,
    ],
)
def test_an_error_page_under_status_200_is_no_file(session, tmp_path, page):
    into = tmp_path / ".a.part"
    wrong = answering(
        b'HTTP/1.1 200 OK\r\nETag: "p"\r\nContent-Type: video/mp4\r\nContent-Length: %d\r\n\r\n%b' % (len(page), page),
        session,
        into,
    )
    assert (wrong.code, wrong.partial, into.exists()) == ("wrong_media", None, False)


def test_too_large_is_refused_early_and_late(session, tmp_path):
    into = tmp_path / ".a.part"
    files = Files()
    with hostile.serving(files) as server:
        assert failing(session, server.url, into, limits=Limits(most_bytes=300_000)).code == "too_large"
    with hostile.serving(hostile.floods(b"HTTP/1.1 200 OK\r\n\r\n" + FILM[:1000], b"x" * 65536)) as endless:
        assert failing(session, endless.url, into, limits=Limits(most_bytes=10**6)).code == "too_large"
    assert not into.exists()


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(deadline=0.4), "timeout"),
        (Limits(silence=0.1), "too_slow"),
        (Limits(slowest=10_000, window=0.3), "too_slow"),
    ],
)
def test_drips_and_silence_end_in_time(session, tmp_path, limits, code):
    start = b'HTTP/1.1 200 OK\r\nETag: "v1"\r\nContent-Length: 300012\r\n\r\n' + FILM[:1000]
    every = 5.0 if limits.silence < 1 else 0.02
    with hostile.serving(hostile.drips(start, every=every)) as server, hostile.Clock() as clock:
        wrong = failing(session, server.url, tmp_path / ".a.part", limits=limits)
    assert wrong.code == code
    assert wrong.partial is not None
    assert clock.seconds < 2.5


def test_a_full_disk_is_its_own_error(session, tmp_path):
    with hostile.serving(Files()) as server:
        wrong = failing(session, server.url, tmp_path / ".a.part", limits=Limits(reserve=2**62))
    assert wrong.code == "disk_full"


def test_writing_beyond_the_room_is_a_full_disk(session, tmp_path):
    full = tmp_path / ".a.part"
    full.symlink_to("/dev/full")
    with hostile.serving(Files()) as server:
        assert failing(session, server.url, full).code == "disk_full"


def test_redirects_are_followed_and_take_no_credentials_to_strangers(session, tmp_path):
    def onward(wire, request: bytes) -> None:
        there = b"/same" if request.startswith(b"GET / ") else f"http://127.0.0.1:{store.port}/film".encode()
        wire.sendall(b"HTTP/1.1 302 Found\r\nLocation: " + there + b"\r\nContent-Length: 0\r\n\r\n")

    with hostile.serving(Files()) as store, hostile.serving(onward) as server:
        headers = {"Authorization": "Bearer sk-1", "x-goog-api-key": "sk-1"}
        assert download(session, server.url, tmp_path / ".a.part", headers=headers).sha256 == SHA
    assert [b"sk-1" in request for request in server.requests] == [True, True]
    assert b"sk-1" not in store.requests[0]
    assert b"x-goog" not in store.requests[0].lower()


def test_a_download_goes_on_behind_a_redirect_to_another_origin(session, tmp_path):
    into, half = tmp_path / ".a.part", len(FILM) // 2
    files = Files(cut=half)

    def onward(wire, _: bytes) -> None:
        there = f"http://127.0.0.1:{store.port}/film".encode()
        wire.sendall(b"HTTP/1.1 302 Found\r\nLocation: " + there + b"\r\nContent-Length: 0\r\n\r\n")

    headers = {"Authorization": "Bearer sk-1"}
    with hostile.serving(files) as store, hostile.serving(onward) as server:
        with pytest.raises(DownloadError) as broken:
            download(session, server.url, into, headers=headers)
        files.cut = None
        assert broken.value.partial is not None
        assert download(session, server.url, into, resume=broken.value.partial, headers=headers).sha256 == SHA
    assert files.served == len(FILM), "each byte once"
    assert b"sk-1" not in b"".join(store.requests)


@pytest.mark.parametrize(
    ("location", "code"),
    [
        ("http://169.254.169.254/latest", "address"),
        ("http://[::ffff:10.0.0.1]/", "address"),
        ("file:///etc/passwd", "redirect"),
        ("/", "redirect"),
        ("http://[", "redirect"),
    ],
)
def test_redirects_that_lead_inside_or_nowhere(session, tmp_path, location, code):
    answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    with hostile.serving(hostile.says(answer)) as server:
        assert failing(session, server.url, tmp_path / ".a.part").code == code
    assert len(server.requests) == (downloads.MOST_HOPS + 1 if location == "/" else 1)


def test_what_never_answers(session, tmp_path):
    with hostile.serving(hostile.says(hostile.OK)) as gone:
        pass
    assert failing(session, gone.url, tmp_path / ".a.part").code == "connect"
    assert failing(session, "http://does-not-exist.invalid/", tmp_path / ".a.part").code == "dns"
    assert failing(session, "https://10.0.0.1/", tmp_path / ".a.part").code == "address"


def test_memory_stays_constant(session, tmp_path):
    size = 200 * 1024 * 1024

    def big(wire, _request: bytes) -> None:
        wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + FILM[:1024])
        block = memoryview(bytes(1024 * 1024))
        for _ in range(size // len(block) - 1):
            wire.sendall(block)
        wire.sendall(block[: len(block) - 1024])

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with hostile.serving(big) as server:
        assert download(session, server.url, tmp_path / ".a.part").size == size
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20 * 1024  # KiB
