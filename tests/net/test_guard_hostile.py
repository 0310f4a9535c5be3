"""The guarded session against servers that drip, flood, break off or never answer: each ends in time, with its class."""

from __future__ import annotations

import concurrent.futures
import threading
import tracemalloc

import pytest

from tests.net import hostile
from tests.net.calls import LOOPBACK, read_all, refused
from tracker.net.guard import GuardedSession


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return hostile.Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def session(authority):
    made = GuardedSession(LOOPBACK, ca_file=str(authority.file))
    yield made
    made.close()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("behaviour", "error_class"),
    [
        (hostile.falls_silent(), "timeout"),
        (hostile.drips(b"HTTP/1.1 200 OK\r\n", drop=b"X: y\r\n"), "timeout"),
        (hostile.drips(b"HTTP/1.1 200 OK\r\nX: "), "timeout"),
        (hostile.drips(b""), "timeout"),
        (hostile.drips(b"", drop=b"HTTP/1.1 100 Continue\r\n\r\n", every=0.2), "timeout"),
        (hostile.drips(b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"), "timeout"),
        (hostile.drips(CHUNKED, drop=b"1\r\nx\r\n"), "timeout"),
        (hostile.drips(CHUNKED, drop=b"0"), "timeout"),
        (hostile.drips(CHUNKED + b"0\r\n", drop=b"T: x\r\n"), "timeout"),
        (hostile.floods(b"", b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"), "protocol"),
        (hostile.floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "protocol"),
        (hostile.floods(b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 1000 + b"\r\n"), "too_large"),
        (hostile.floods(b"HTTP/1.1 200 OK\r\n", b"X:y\r\n"), "protocol"),
        (hostile.floods(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536), "too_large"),
        (hostile.floods(b"", b"y" * 65536), "too_large"),
        (hostile.floods(CHUNKED, b"1" * 65536), "protocol"),
        (hostile.says(b"HTTP/1.1 101 Switching Protocols\r\n\r\n"), "protocol"),
        (hostile.resets(), "protocol"),
        (hostile.resets(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), "protocol"),
        (hostile.half_closes(), "protocol"),
        (hostile.half_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), "protocol"),
        (hostile.half_closes(CHUNKED + b"5\r\nab"), "protocol"),
        (hostile.then_closes(b"what is this\r\n\r\n"), "protocol"),
        (hostile.then_closes(b"HTTP/1.1 abc\r\n\r\n"), "protocol"),
    ],
)
def test_a_hostile_server_ends_in_time_with_its_class(session, behaviour, error_class):
    tracemalloc.start()
    with hostile.serving(behaviour) as server, hostile.Clock() as clock:
        wrong = refused(session, server.url, deadline=0.5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert wrong.error_class == error_class, wrong
    assert clock.seconds < 2.0
    assert peak < 4 * 1024 * 1024


def test_the_same_holds_over_tls(session, authority):
    vices = {
        "timeout": (
            hostile.drips(b"HTTP/1.1 200 OK\r\n", drop=b"X: y\r\n"),
            hostile.drips(CHUNKED, drop=b"1\r\nx\r\n"),
            hostile.falls_silent(),
        ),
        "protocol": (hostile.resets(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"),),
    }
    for error_class, behaviours in vices.items():
        for behaviour in behaviours:
            with hostile.serving(behaviour, authority.context()) as server, hostile.Clock() as clock:
                assert refused(session, server.url, deadline=0.5).error_class == error_class
            assert clock.seconds < 2.0


def test_silence_is_told_from_the_deadline(session):
    with hostile.serving(hostile.falls_silent(b"HTTP/1.1 200 OK\r\n\r\nx")) as server, hostile.Clock() as clock:
        wrong = refused(session, server.url, deadline=30.0, silence=0.2)
    assert (wrong.error_class, str(wrong)) == ("timeout", "the other side fell silent")
    assert clock.seconds < 2.0


def test_interim_responses_are_skipped(session):
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
    with hostile.serving(hostile.says(early + hostile.OK)) as server:
        for _ in range(2):
            assert read_all(session.open("GET", server.url, deadline=5.0)) == b"ok"
    assert server.connections == 1


def test_a_gzip_bomb_stays_as_small_as_it_came(session):
    packed = b"\x1f\x8b" + b"\0" * 1000
    with hostile.serving(
        hostile.says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 1002\r\n\r\n" + packed)
    ) as server:
        assert read_all(session.open("GET", server.url, deadline=5.0)) == packed


def test_a_handshake_that_never_ends(session):
    with hostile.serving(hostile.falls_silent()) as server, hostile.Clock() as clock:
        assert refused(session, server.url.replace("http:", "https:"), deadline=0.4).error_class == "timeout"
    assert clock.seconds < 2.0


def test_look_ups_are_bounded_in_time_and_number():
    stuck = threading.Event()

    def look_up(host: str, port: int) -> list[str]:
        stuck.wait(20)
        return ["127.0.0.1"]

    session = GuardedSession(LOOPBACK, look_up=look_up)
    with concurrent.futures.ThreadPoolExecutor(40) as pool, hostile.Clock() as clock:
        wrongs = list(pool.map(lambda n: refused(session, f"http://h{n}.example/", deadline=0.4), range(40)))
    assert {wrong.error_class for wrong in wrongs} == {"dns"}
    assert clock.seconds < 2.0
    assert sum(thread.name == "resolve" for thread in threading.enumerate()) <= 32
    stuck.set()
