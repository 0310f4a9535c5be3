"""Posts over libcurl against hostile servers on real sockets: what counts as an answer, where posts may go, and that each comes back in time."""

from __future__ import annotations

import os
import re
import resource
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.net import hostile
from tracker.core.addresses import Policy
from tracker.net import resolve
from tracker.net.failures import WrongProcessError
from tracker.net.pins import Pins
from tracker.net.post import Post, Posted, Poster

LOOPBACK = Policy.of(["127.0.0.0/8", "::1/128"])
CHUNKED = b"HTTP/1.1 %d OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> hostile.Authority:
    return hostile.Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def poster(authority: hostile.Authority) -> Iterator[Poster]:
    made = Poster(LOOPBACK, ca_file=str(authority.file))
    yield made
    made.close()


@contextmanager
def bounded_memory(most: int = 16 << 20) -> Iterator[None]:
    """The whole process, libcurl's own buffers included, grows by no more than so many bytes within the block."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = peak_memory()
    yield
    assert peak_memory() - before < most


def peak_memory() -> int:
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) << 10


def all_landed(poster: Poster, seconds: float = 10.0) -> list[Posted]:
    landed, ends = [], time.monotonic() + seconds
    while poster.flying:
        assert time.monotonic() < ends, "something is still in flight"
        landed += poster.landed(0.5)
    return landed


def post(
    poster: Poster, url: str, *, deadline: float = 5.0, ca: str | None = None, headers=(("X-One", "1"),)
) -> Posted:
    poster.launch([Post("key", url, tuple(headers), b'{"a":1}', deadline, ca)])
    (posted,) = all_landed(poster)
    return posted


def test_a_post_arrives_whole_and_its_connection_is_kept(poster):
    with hostile.serving(hostile.says(b"HTTP/1.1 204 No\r\nSet-Cookie: a=b\r\nRetry-After: 7\r\n\r\n")) as server:
        posted = post(poster, server.url)
        again = post(poster, server.url)
    assert (posted.post.key, posted.status, posted.body, posted.failure, posted.retry_after) == (
        "key",
        204,
        b"",
        None,
        7.0,
    )
    assert again.status == 204
    assert server.connections == 1
    head, _, body = server.requests[1].partition(b"\r\n\r\n")
    lines = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert head.startswith(b"POST / HTTP/1.1\r\n")
    assert body == b'{"a":1}'
    assert lines[b"X-One"] == b"1"
    assert lines[b"Accept-Encoding"] == b"identity"
    assert lines[b"Host"] == f"localhost:{server.port}".encode()
    assert not {b"Cookie", b"Expect", b"Authorization"} & lines.keys()


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize(
    ("vice", "body"),
    [
        (lambda s: hostile.drips(b"HTTP/1.1 %d OK\r\n\r\n" % s), None),
        (lambda s: hostile.drips(CHUNKED % s, drop=b"1\r\nx\r\n"), None),
        (lambda s: hostile.drips(CHUNKED % s + b"0\r\n", drop=b"T: x\r\n"), b""),
        (lambda s: hostile.floods(b"HTTP/1.1 %d OK\r\n\r\n" % s, b"x" * 65536), b"x" * 2048),
        (lambda s: hostile.floods(b"HTTP/1.1 %d OK\r\nContent-Length: 99999999999\r\n\r\n" % s, b"x" * 65536), b"x" * 2048),
        (lambda s: hostile.resets(b"HTTP/1.1 %d OK\r\nContent-Length: 100\r\n\r\nxx" % s), None),
        (lambda s: hostile.falls_silent(b"HTTP/1.1 %d OK\r\nContent-Length: 100\r\n\r\nxx" % s), b"xx"),
        (lambda s: hostile.half_closes(b"HTTP/1.1 %d OK\r\nContent-Length: 100\r\n\r\nxx" % s), b"xx"),
        (lambda s: hostile.floods(CHUNKED % s + b"zz\r\n", b"?"), b""),
    ],
)  # fmt: skip
def test_once_the_head_is_there_the_status_alone_counts(poster, status, vice, body):
    with hostile.serving(vice(status)) as server, hostile.Clock() as clock, bounded_memory():
        posted = post(poster, server.url, deadline=0.5)
    assert (posted.status, posted.failure) == (status, None)
    assert body is None or posted.body == body
    assert set(posted.body) <= set(b"x")
    assert clock.seconds < 2.0


@pytest.mark.parametrize(
    ("vice", "failure"),
    [
        (hostile.falls_silent(), "timeout"),
        (hostile.drips(b"HTTP/1.1 200 OK\r\n", drop=b"X: y\r\n"), "timeout"),
        (hostile.drips(b"HTTP/1.1 200 OK\r\nX: "), "timeout"),
        (hostile.drips(b""), "protocol"),
        (hostile.drips(b"", drop=b"HTTP/1.1 100 Continue\r\n\r\n", every=0.2), "timeout"),
        (hostile.floods(b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"), "too_large"),
        (hostile.floods(b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 1000 + b"\r\n"), "too_large"),
        (hostile.floods(b"HTTP/1.1 200 OK\r\n", b"X:y\r\n"), "too_large"),
        (hostile.floods(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536), "too_large"),
        (hostile.floods(b"", b"y" * 65536), "protocol"),
        (hostile.says(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "timeout"),
        (hostile.resets(), "protocol"),
        (hostile.half_closes(), "protocol"),
        (hostile.then_closes(b"what is this\r\n\r\n"), "protocol"),
        (hostile.then_closes(b"HTTP/1.1 abc\r\n\r\n"), "protocol"),
        (hostile.then_closes(b"HTTP/1.1 200 OK\r\nX: y\r\n"), "protocol"),
    ],
)
def test_without_a_whole_head_there_is_a_failure_with_its_class(poster, vice, failure):
    with hostile.serving(vice) as server, hostile.Clock() as clock, bounded_memory():
        posted = post(poster, server.url, deadline=0.5)
    assert (posted.status, posted.failure) == (None, failure), posted.detail
    assert posted.detail
    assert clock.seconds < 2.0


def test_interim_responses_are_skipped(poster):
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    with hostile.serving(hostile.says(early + hostile.OK)) as server:
        assert (post(poster, server.url).status, post(poster, server.url).body) == (200, b"ok")
    assert server.connections == 1


def test_a_gzip_bomb_stays_as_small_as_it_came(poster):
    """256 MB in 250 kB, and 2 MB in the part that is kept."""
    press = zlib.compressobj(wbits=31)
    bomb = b"".join(press.compress(bytes(1 << 20)) for _ in range(256)) + press.flush()
    assert len(zlib.decompressobj(wbits=31).decompress(bomb[:2048])) > 1 << 20
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    with hostile.serving(hostile.says(head + bomb)) as server, bounded_memory():
        assert post(poster, server.url).body == bomb[:2048]


def test_a_handshake_that_never_ends(poster):
    with hostile.serving(hostile.falls_silent()) as server, hostile.Clock() as clock:
        assert post(poster, server.url.replace("http:", "https:"), deadline=0.4).failure == "timeout"
    assert clock.seconds < 2.0


def test_redirects_are_answers(poster):
    with (
        hostile.serving(hostile.says(hostile.OK)) as inside,
        hostile.serving(
            hostile.says(b"HTTP/1.1 307 Go\r\nLocation: %b\r\nContent-Length: 0\r\n\r\n" % inside.url.encode())
        ) as server,
    ):
        assert post(poster, server.url).status == 307
    assert inside.connections == 0


def test_environment_proxies_are_ignored(poster, monkeypatch):
    with hostile.serving(hostile.says(hostile.OK)) as server, hostile.serving(hostile.says(b"")) as proxy:
        for name in ("http_proxy", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        assert post(poster, server.url).status == 200
    assert proxy.connections == 0


@pytest.mark.parametrize(
    "answers",
    [["10.0.0.1"], ["8.8.8.8", "169.254.169.254"], ["::ffff:10.0.0.1"], ["2002:7f00:1::"], ["64:ff9b::7f00:1"]],
)
def test_one_forbidden_answer_refuses_all(answers):
    closed = Poster(Policy.of([]), look_up=hostile.resolves_to(*answers))
    posted = post(closed, "https://rebind.example/")
    closed.close()
    assert posted.failure == "address"
    assert "TRACKER_EGRESS_ALLOW" in posted.detail


def test_a_name_that_changes_its_answer_leads_nowhere_new(monkeypatch):
    """The vetted answer is pinned: while it holds nobody asks again, and then the new one is vetted."""
    monkeypatch.setattr("tracker.net.pins.PINNED_SECONDS", 0.3)
    asked: list[str] = []

    def look_up(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.2"]

    with hostile.serving(hostile.says(hostile.OK)) as outside:
        inside = hostile.Server(hostile.says(hostile.OK), host="127.0.0.2")
        picky = Poster(Policy.of(["127.0.0.1/32"]), look_up=look_up)
        url = f"http://rebind.example:{outside.port}/"
        assert [post(picky, url).status for _ in range(2)] == [200, 200]
        assert asked == ["rebind.example"]
        ends = time.monotonic() + 5
        while (posted := post(picky, url)).status == 200:
            assert time.monotonic() < ends
        assert posted.failure == "address"
        assert post(picky, f"http://rebind.example:{inside.port}/").failure == "address"
        picky.close()
        inside.close()
    assert inside.connections == 0
    assert outside.connections == 1


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "2130706433",
        "0x7f.1",
        "127.1",
        "[::ffff:127.0.0.1]",
        "localhost",
        "\uff11\uff12\uff17.0.0.1",
        "0",
        "[::1]",
    ],
)
def test_no_spelling_of_loopback_is_connected_to(host):
    closed = Poster(Policy.of([]))
    with hostile.serving(hostile.says(hostile.OK)) as server:
        assert post(closed, f"http://{host}:{server.port}/").failure == "address"
        assert post(closed, f"https://{host}:{server.port}/").failure == "address"
    closed.close()
    assert server.connections == 0


def test_ports_and_plain_http():
    public = Poster(Policy.of([]), look_up=hostile.resolves_to("192.0.1.1"))
    assert "TRACKER_EGRESS_PORTS" in post(public, "https://example.com:22/").detail
    assert "https://" in post(public, "http://example.com/").detail
    public.close()


@pytest.mark.parametrize(
    "url",
    ["ftp://localhost/", "http://a@localhost/", "http://", "http://localhost:99999/", "http://local host/", "nonsense"],
)
def test_what_is_no_url_is_refused(poster, url):
    assert post(poster, url).failure == "address"


@pytest.mark.parametrize(
    "headers",
    [{"X": "a\r\nY: b"}, {"X\n": "a"}, {"Host": "other"}, {"Transfer-Encoding": "chunked"}, {"X": "\u2603"}, {"": "a"}],
)
def test_headers_that_would_change_the_request_are_refused(poster, headers):
    with hostile.serving(hostile.says(hostile.OK)) as server:
        assert post(poster, server.url, headers=headers.items()).failure == "protocol"
        assert post(poster, server.url).status == 200
    assert server.connections == 1


def test_tls_verifies_name_time_and_authority(poster, authority):
    with hostile.serving(hostile.says(hostile.OK), authority.context()) as server:
        assert [post(poster, server.url).status for _ in range(2)] == [200, 200]
        assert server.connections == 1
    for context in (authority.context("other.example"), authority.context(expired=True), hostile.trustme_stranger()):
        with hostile.serving(hostile.says(hostile.OK), context) as bad:
            assert post(poster, bad.url).failure == "tls"
        assert bad.requests == []


def test_the_name_asked_for_is_the_name_verified(authority):
    names: list[str] = []
    context = authority.context("hooks.example")
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    pinning = Poster(LOOPBACK, ca_file=str(authority.file), look_up=hostile.resolves_to("127.0.0.1"))
    with hostile.serving(hostile.says(hostile.OK), context) as server:
        assert post(pinning, f"https://hooks.example:{server.port}/").status == 200
        assert post(pinning, f"https://other.example:{server.port}/").failure == "tls"
    pinning.close()
    assert names == ["hooks.example", "other.example"]
    assert f"Host: hooks.example:{server.port}".encode() in server.requests[0]


def test_an_endpoints_own_ca_is_the_only_one_trusted_for_it(poster, authority, tmp_path: Path):
    (tmp_path / "other").mkdir()
    other = hostile.Authority(tmp_path / "other")
    strict = Poster(LOOPBACK)
    with hostile.serving(hostile.says(hostile.OK), authority.context()) as server:
        assert post(strict, server.url).failure == "tls"
        assert post(strict, server.url, ca=authority.pem).status == 200
        assert post(strict, server.url).failure == "tls"  # the verified connection is not shared
        assert post(strict, server.url, ca="nonsense").failure == "tls"
        assert post(poster, server.url, ca=other.pem).failure == "tls"  # the poster's own bundle does not help
        assert post(poster, server.url).status == 200
    strict.close()


def test_what_is_unreachable(poster):
    with hostile.serving(hostile.says(hostile.OK)) as server:
        pass
    assert post(poster, server.url).failure == "connect"
    assert post(poster, "http://does-not-exist.invalid/").failure == "dns"


def test_the_next_address_is_tried_when_one_is_down():
    two = Poster(LOOPBACK, look_up=hostile.resolves_to("127.0.0.3", "127.0.0.1"))
    with hostile.serving(hostile.says(hostile.OK)) as server:
        assert post(two, f"http://two.example:{server.port}/").status == 200
    two.close()


HANGING = 4 * resolve.AT_ONCE


class Names:
    """A resolver that hangs for all names but some; nothing that it was asked is answered before the test ends."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.end, self.asked = set(answers), threading.Event(), Counter[str]()

    def __call__(self, host: str, _port: int) -> list[str]:
        self.asked[host] += 1
        if host not in self.answers:
            self.end.wait(20)
        return ["127.0.0.1"]


@pytest.fixture
def names() -> Iterator[Names]:
    made = Names("good.example")
    yield made
    made.end.set()


def test_look_ups_hold_up_nobody_and_end_in_time(names):
    slow = Poster(LOOPBACK, look_up=names)
    with hostile.serving(hostile.says(hostile.OK)) as server, hostile.Clock() as clock:
        slow.launch(Post(n, f"http://h{n}.example/", (), b"", 0.6, owner="bad") for n in range(HANGING))
        slow.launch([Post("good", f"http://good.example:{server.port}/", (), b"", 5.0, owner="good")])
        first = []
        while not first:
            first = slow.landed(1.0)
        assert [(p.post.key, p.status) for p in first] == [("good", 200)]
        rest = all_landed(slow)
    slow.close()
    assert {p.failure for p in rest} == {"dns"}
    assert len(rest) == HANGING
    assert clock.seconds < 3.0
    assert sum(names.asked.values()) == resolve.SHARE + 1, "no more are looked up for one owner at a time"


def test_a_name_that_hangs_takes_one_look_up_however_often_it_is_asked_for(names):
    slow = Poster(LOOPBACK, look_up=names)
    for _ in range(3):
        assert post(slow, "http://hangs.example/", deadline=0.1).failure == "dns"
    slow.close()
    assert names.asked == {"hangs.example": 1}


def test_a_known_name_is_used_while_it_is_looked_up_again(names, monkeypatch):
    monkeypatch.setattr("tracker.net.pins.PINNED_SECONDS", 0.0)
    known = Poster(LOOPBACK, look_up=names)
    with hostile.serving(hostile.says(hostile.OK)) as server:
        url = f"http://good.example:{server.port}/"
        assert post(known, url).status == 200
        names.answers.clear()
        assert [post(known, url, deadline=5.0).status for _ in range(3)] == [200] * 3
        assert names.asked["good.example"] <= 2
        monkeypatch.setattr("tracker.net.pins.RENEWED_SECONDS", 0.0)
        assert post(known, url, deadline=0.2).failure == "dns", "but not for ever"
    known.close()


def test_names_that_are_not_asked_for_any_more_are_forgotten(names, monkeypatch):
    names.end.set()
    pins = Pins(resolve.Resolver(names), lambda: None)

    def learnt(*hosts: str) -> None:
        for host in hosts:
            assert pins.find((host, 80), None) is None
            ends = time.monotonic() + 5
            while host not in {key[0] for key, _ in pins.answers()}:
                assert time.monotonic() < ends

    monkeypatch.setattr("tracker.net.pins.MOST", 3)
    learnt("a", "b", "c", "d")
    assert len(pins) == 3
    assert pins.find(("d", 80), None)
    monkeypatch.setattr("tracker.net.pins.RENEWED_SECONDS", 0.0)
    learnt("e")
    assert len(pins) == 1


def test_a_kept_alive_connection_that_died_is_replaced(poster):
    def once(wire, request):
        wire.sendall(hostile.OK)
        wire.close()

    with hostile.serving(once) as server:
        assert [post(poster, server.url).status for _ in range(5)] == [200] * 5
    assert len(server.requests) == 5


def test_many_hanging_ones_do_not_hold_up_the_others(poster):
    with hostile.serving(hostile.falls_silent()) as mute, hostile.serving(hostile.says(hostile.OK)) as server:
        poster.launch(Post("mute", mute.url, (), b"", 3.0) for _ in range(100))
        with hostile.Clock() as clock:
            poster.launch(Post("good", server.url, (), b"", 5.0) for _ in range(50))
            landed: list[Posted] = []
            while len(landed) < 50:
                landed += poster.landed(1.0)
        assert {p.post.key for p in landed} == {"good"}
        assert clock.seconds < 2.0
        assert {p.failure for p in all_landed(poster)} == {"timeout"}


def test_high_file_descriptors_are_as_good_as_low_ones():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2200:
        pytest.skip("this process may not open so many")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2200), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        with hostile.serving(hostile.says(hostile.OK)) as server:
            high = Poster(LOOPBACK)
            assert [post(high, server.url).status for _ in range(2)] == [200, 200]
            high.close()
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_wake_ends_the_wait(poster):
    threading.Timer(0.05, poster.wake).start()
    with hostile.Clock() as clock:
        assert poster.landed(10.0) == []
    assert clock.seconds < 5.0


def test_ipv6_hosts(poster):
    with hostile.serving(hostile.says(hostile.OK), host="::1") as server:
        assert post(poster, f"http://[::1]:{server.port}/").status == 200
        six = Poster(LOOPBACK, look_up=hostile.resolves_to("::1"))
        assert post(six, f"http://six.example:{server.port}/").status == 200
        six.close()


def test_another_process_is_refused(poster):
    child = os.fork()
    if child == 0:
        try:
            poster.launch([Post(1, "http://localhost/", (), b"", 1.0)])
        except WrongProcessError:
            os._exit(0)
        os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def test_posts_show_no_secret():
    assert "hush" not in repr(Post(1, "http://hush/", (("X", "hush"),), b"hush", 1.0))
