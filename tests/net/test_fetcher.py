"""The fetcher against servers that answer well, badly or never."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.net import hostile
from tracker.core.addresses import Policy
from tracker.net import fetch, multi
from tracker.net.fetch import FEW, QUICK, Answer, Ask, Fetcher, Fetchers

LOOPBACK = Policy.of(["127.0.0.0/8", "::1/128"])
CLOSED = Policy.of([])


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return hostile.Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def fetcher(authority):
    made = Fetcher(LOOPBACK, cap_bytes=64 * 1024, ca_file=str(authority.file))
    yield made
    made.close()


def ask(url: str, **fields) -> Ask:
    return Ask(**{"key": url, "method": "GET", "url": url, "deadline": 2.0} | fields)


def one(fetcher: Fetcher, url: str, **fields) -> Answer:
    answers = [answer for part in fetcher.fetch([ask(url, **fields)]) for answer in part]
    assert len(answers) == 1
    return answers[0]


def test_get_and_post_bring_status_body_and_headers_and_share_a_connection(fetcher):
    answer = b"HTTP/1.1 429 Slow\r\nContent-Type: application/json\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}"
    with hostile.serving(hostile.says(answer)) as server:
        get = one(fetcher, server.url + "a?b=c", headers=(("Authorization", "Bearer k"), ("X-Empty", "")))
        post = one(
            fetcher,
            server.url + "b",
            method="POST",
            body=b'{"ids": []}',
            headers=(("Content-Type", "application/json"),),
        )
        again = one(fetcher, server.url + "c")
    assert (get.status, get.body, get.failure) == (429, b"{}", None)
    assert get.headers == {"retry-after": "7"}
    assert post.status == again.status == 429
    assert server.requests[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert b"Authorization: Bearer k\r\n" in server.requests[0]
    assert b"X-Empty:\r\n" in server.requests[0]
    assert b"Accept-Encoding: identity\r\n" in server.requests[0]
    assert server.requests[1].startswith(b"POST /b HTTP/1.1\r\n")
    assert server.requests[1].endswith(b'\r\n\r\n{"ids": []}')
    assert server.requests[2].startswith(b"GET /c HTTP/1.1\r\n")
    assert b"Authorization" not in server.requests[2]
    assert b"Content-" not in server.requests[2]
    assert server.connections == 1


def test_other_methods_and_their_bodies(fetcher):
    with hostile.serving(hostile.says(hostile.OK)) as server:
        assert one(fetcher, server.url, method="PUT", body=b"x").status == 200
        assert one(fetcher, server.url, method="DELETE").status == 200
        assert one(fetcher, server.url).status == 200
    assert [request.split()[0] for request in server.requests] == [b"PUT", b"DELETE", b"GET"]


def test_answers_come_in_slices_while_others_are_in_flight(fetcher):
    with hostile.serving(hostile.says(hostile.OK)) as quick, hostile.serving(hostile.falls_silent()) as never:
        asks = [ask(quick.url, key=n) for n in range(50)] + [ask(never.url, key="slow", deadline=1.0)]
        began = time.monotonic()
        slices = fetcher.fetch(asks, at_once=20, slice_seconds=0.02)
        early = next(slices)
        rest = [answer for part in slices for answer in part]
    assert early
    assert {answer.status for answer in early} == {200}
    assert {answer.ask.key for answer in early + rest} == {*range(50), "slow"}
    assert rest[-1].failure == "timeout"
    assert time.monotonic() - began < 1.5


def test_who_has_more_to_ask_later_need_not_wait_for_an_answer(fetcher):
    with hostile.serving(hostile.says(hostile.OK)) as quick, hostile.serving(hostile.falls_silent()) as never:
        slow = ask(never.url, key="slow", deadline=1.0)
        assert [len(part) for part in fetcher.fetch([slow])] == [1], "who cannot add anything hears answers alone"
        queue, heard = deque([slow]), []
        for part in fetcher.fetch(queue):
            heard += [answer.ask.key for answer in part]
            if not part and "late" not in heard:
                queue.append(ask(quick.url, key="late"))
    assert heard[0] == "late"
    assert heard[-1] == "slow"


def test_in_flight_is_bounded(fetcher):
    with hostile.serving(hostile.says(hostile.OK)) as one_host, hostile.serving(hostile.says(hostile.OK)) as other:
        asks = [ask(one_host.url, key=n) for n in range(40)] + [ask(other.url, key=100 + n) for n in range(40)]
        got = [answer.ask.key for part in fetcher.fetch(asks, at_once=9) for answer in part]
    assert sorted(got) == [*range(40), *range(100, 140)]
    assert one_host.connections <= 9
    assert other.connections <= 9


def test_a_host_that_takes_its_time_gets_more_at_once(fetcher):
    def at_leisure(wire: socket.socket, _: bytes) -> None:
        time.sleep(0.15)
        wire.sendall(hostile.OK)

    with hostile.serving(at_leisure) as server:
        got = [
            a.status for part in fetcher.fetch([ask(server.url, key=n) for n in range(400)], at_once=200) for a in part
        ]
    assert got == [200] * 400
    assert 2 * FEW < server.peak <= 200


def test_work_is_no_waiting_and_brings_no_more_connections(fetcher):
    """Handshakes over TLS take long: who took that for a slow host would open ever more connections, each with its handshake."""
    real = fetcher._multi.step

    def laboriously(seconds: float) -> bool:
        began = time.monotonic()
        stirred = real(seconds)
        if time.monotonic() < began + QUICK:
            time.sleep(2 * QUICK)
        return stirred

    fetcher._multi.step = laboriously
    with hostile.serving(hostile.says(hostile.OK)) as server:
        asks = [ask(server.url, key=n) for n in range(600)]
        assert sum(len(part) for part in fetcher.fetch(asks, at_once=600)) == 600
    assert server.peak < 4 * FEW


@pytest.mark.parametrize(
    ("behaviour", "failure"),
    [
        (hostile.drips(b"HTTP/1.1 200 OK\r\n", drop=b"X: y\r\n"), "timeout"),
        (hostile.drips(b"HTTP/1.1 200 OK\r\n\r\n"), "timeout"),
        (hostile.floods(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536), "too_large"),
        (
            hostile.floods(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
            ),
            "too_large",
        ),
        (hostile.says(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n"), "too_large"),
        (hostile.floods(b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 1000 + b"\r\n"), "too_large"),
        (hostile.floods(b"HTTP/1.1 200 OK\r\nX: ", b"y" * 65536), "too_large"),
        (hostile.resets(), "protocol"),
        (hostile.resets(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), "protocol"),
        (hostile.half_closes(), "protocol"),
        (hostile.half_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"), "protocol"),
        (hostile.then_closes(b"what is this\r\n\r\n"), "protocol"),
        (hostile.falls_silent(), "timeout"),
    ],
)
def test_a_hostile_server_ends_in_time_with_its_class(fetcher, behaviour, failure):
    with hostile.serving(behaviour) as server, hostile.Clock() as clock:
        answer = one(fetcher, server.url, deadline=0.6)
        assert one(fetcher, server.url, deadline=0.6).failure == failure  # the fetcher is still of use
    assert (answer.failure, answer.status, answer.body) == (failure, 0, b"")
    assert clock.seconds < 2.5


def test_a_flood_of_interim_responses_ends_with_bounded_memory(fetcher):
    block = b"HTTP/1.1 103 Early Hints\r\nLink: <" + b"x" * 8000 + b">\r\n\r\n"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with hostile.serving(hostile.floods(b"", block)) as server:
        answer = one(fetcher, server.url, deadline=3.0)
    assert answer.failure == "too_large"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 * 1024  # KiB


def _closes(wire: socket.socket, _: bytes) -> None:
    raise OSError  # the kit closes it


def _answers_first_and_then(end: hostile.Behaviour) -> hostile.Behaviour:
    served: set[socket.socket] = set()

    def behave(wire: socket.socket, request: bytes) -> None:
        if wire in served:
            end(wire, request)
        served.add(wire)
        wire.sendall(hostile.OK)

    return behave


@pytest.mark.parametrize("own_host", [True, False])
@pytest.mark.parametrize("end", [hostile.resets(), _closes], ids=["reset", "closed"])
@pytest.mark.parametrize("body", [None, b'{"ids": []}'])
def test_a_question_is_sent_once_even_where_its_kept_connections_die_under_it(fetcher, own_host, end, body):
    # libcurl by itself sends it again, at once and up to five times, on the next connection that it kept.
    with hostile.serving(_answers_first_and_then(end)) as server:
        host = f"localhost:{server.port}" if own_host else ""
        first = [ask(f"{server.url}{n}", host_allowed=host) for n in range(4)]
        kept = [answer.status for part in fetcher.fetch(first) for answer in part]
        died = one(fetcher, server.url + "again", host_allowed=host, body=body, method="POST" if body else "GET")
        asked = [request for request in server.requests if b"/again " in request]
        fresh = one(fetcher, server.url + "fresh", host_allowed=host)
    assert kept == [200] * 4
    assert (died.status, died.failure) == (0, "protocol")
    assert "before it was answered" in died.detail
    assert len(asked) == 1
    assert fresh.failure == "protocol", (
        "the next question, too, meets a kept connection that dies, and is not sent twice"
    )
    assert len(server.requests) == 6


def test_redirects_are_answers(fetcher):
    with hostile.serving(
        hostile.says(b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n")
    ) as server:
        answer = one(fetcher, server.url)
    assert (answer.status, answer.failure) == (302, None)


def test_gzip_is_handed_over_as_it_came(fetcher):
    packed = b"\x1f\x8b" + b"\0" * 50
    with hostile.serving(
        hostile.says(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 52\r\n\r\n" + packed)
    ) as server:
        assert one(fetcher, server.url).body == packed


def test_tls_is_verified(fetcher, authority):
    with hostile.serving(hostile.says(hostile.OK), authority.context()) as good:
        assert one(fetcher, good.url).status == 200
    for context in (authority.context("other.example"), authority.context(expired=True), hostile.trustme_stranger()):
        with hostile.serving(hostile.says(hostile.OK), context) as bad:
            answer = one(fetcher, bad.url)
            assert answer.failure == "tls", answer
            assert bad.requests == []


def test_a_forbidden_address_is_never_connected_to(authority):
    fetcher = Fetcher(CLOSED, ca_file=str(authority.file))
    with hostile.serving(hostile.says(hostile.OK)) as server:
        for host in ("127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"):
            answer = one(fetcher, f"http://{host}:{server.port}/")
            assert answer.failure == "address", answer
            assert "TRACKER_EGRESS_ALLOW" in answer.detail
        assert server.connections == 0
    fetcher.close()


def test_threads_that_take_turns_share_connections_and_those_at_the_same_time_do_not():
    fetchers = Fetchers(lambda: Fetcher(LOOPBACK))
    together = threading.Barrier(2)

    def fetched(url: str, *, meet: bool = False) -> int:
        slices = fetchers.fetch([ask(url)])
        first = next(slices)
        if meet:
            together.wait(5)  # neither has given its fetcher back
        return len(first) + sum(map(len, slices))

    with hostile.serving(hostile.says(hostile.OK)) as server:
        for _ in range(3):
            with ThreadPoolExecutor(1) as thread:  # a new thread each time
                assert thread.submit(fetched, server.url).result() == 1
        assert server.connections == 1
        with ThreadPoolExecutor(2) as threads:
            assert [f.result() for f in [threads.submit(fetched, server.url, meet=True) for _ in range(2)]] == [1, 1]
        assert server.connections == 2


def test_of_many_that_fetched_together_a_few_keep_their_connections():
    fetchers, together = Fetchers(lambda: Fetcher(LOOPBACK)), threading.Barrier(4)

    def fetched(url: str) -> int:
        slices = fetchers.fetch([ask(url)])
        first = next(slices)
        together.wait(5)  # none has given its fetcher back
        return len(first) + sum(map(len, slices))

    with hostile.serving(hostile.says(hostile.OK)) as server, ThreadPoolExecutor(4) as threads:
        for connections in (4, 8 - Fetchers.kept):
            assert [run.result() for run in [threads.submit(fetched, server.url) for _ in range(4)]] == [1] * 4
            assert server.connections == connections


def test_a_burst_is_divided_among_handles_whose_connections_are_used_again_and_closed_at_last(monkeypatch):
    monkeypatch.setattr(fetch, "SHARE", 2)
    everybody = threading.Barrier(5)

    def when_all_are_there(wire: socket.socket, request: bytes) -> None:
        if b"GET /together" in request:
            everybody.wait(5)
        wire.sendall(hostile.OK)

    def burst(url: str) -> list[int]:
        return [answer.status for part in fetcher.fetch([ask(f"{url}/together")] * 5, at_once=5) for answer in part]

    fetcher = Fetcher(LOOPBACK)
    with hostile.serving(when_all_are_there) as server:
        assert burst(server.url) == burst(server.url) == [200] * 5
        assert server.connections == 5
        monkeypatch.setattr(multi, "UNUSED", 0.0)
        for _ in range(3):
            assert one(fetcher, server.url).status == 200
        monkeypatch.setattr(multi, "UNUSED", 60.0)
        assert server.connections == 5, "few need one handle, and it has connections"
        assert burst(server.url) == [200] * 5
        assert server.connections == 8, "those of the two handles that only the burst needed were closed"
    fetcher.close()


def test_a_fetcher_whose_answers_nobody_took_is_used_again():
    fetchers = Fetchers(lambda: Fetcher(LOOPBACK))
    with hostile.serving(hostile.says(hostile.OK)) as quick, hostile.serving(hostile.falls_silent()) as never:
        slices = fetchers.fetch([ask(quick.url), ask(never.url)])
        assert [answer.status for answer in next(slices)] == [200]
        slices.close()
        assert [answer.status for part in fetchers.fetch([ask(quick.url)]) for answer in part] == [200]
        assert quick.connections == 1


def test_a_credentials_own_host_is_reachable_and_its_connection_serves_nobody_else():
    fetcher = Fetcher(CLOSED)
    with hostile.serving(hostile.says(hostile.OK)) as server:
        own = f"localhost:{server.port}"
        assert one(fetcher, server.url, host_allowed=own).status == 200
        for stranger in ("", "localhost:1", f"example.com:{server.port}"):
            assert one(fetcher, server.url, host_allowed=stranger).failure == "address"
        assert one(fetcher, f"http://{own}@127.0.0.1:{server.port}/", host_allowed=own).failure == "address"
        assert len(server.requests) == 1
    fetcher.close()


@pytest.mark.parametrize("spelling", ["[::1]:{}", "::1:{}"])
def test_an_own_host_may_be_an_ipv6_address(spelling):
    fetcher = Fetcher(CLOSED)
    with hostile.serving(hostile.says(hostile.OK), host="::1") as server:
        assert one(fetcher, f"http://[::1]:{server.port}/", host_allowed=spelling.format(server.port)).status == 200
        assert one(fetcher, f"http://[::1]:{server.port}/", host_allowed="::1:1").failure == "address"
    fetcher.close()


def test_unreachable_hosts_and_unsendable_asks(fetcher):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert one(fetcher, f"http://127.0.0.1:{unused.getsockname()[1]}/").failure == "connect"
    assert one(fetcher, "http://does-not-exist.invalid/").failure == "dns"
    assert one(fetcher, "ftp://127.0.0.1/").failure == "protocol"
    assert one(fetcher, "http://127.0.0.1/", headers=(("X", "a\r\nY: b"),)).failure == "protocol"
    assert one(fetcher, "http://127.0.0.1/\u2603").failure == "protocol"


def test_environment_proxies_are_ignored(fetcher, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    with hostile.serving(hostile.says(hostile.OK)) as server:
        assert one(fetcher, server.url).status == 200


def test_closing_the_iterator_midway_leaves_the_fetcher_usable(fetcher):
    with hostile.serving(hostile.falls_silent()) as never, hostile.serving(hostile.says(hostile.OK)) as quick:
        slices = fetcher.fetch([ask(never.url, key=n) for n in range(5)] + [ask(quick.url)])
        assert next(slices)[0].status == 200
        with pytest.raises(RuntimeError, match="already fetching"):
            next(fetcher.fetch([ask(quick.url)]))
        slices.close()
        assert one(fetcher, quick.url).body == b"ok"


USE_AFTER_FORK = """
import os, sys
from tracker.core.addresses import Policy
from tracker.net.fetch import Fetcher

made = Fetcher(Policy())
if os.fork() == 0:
    try:
        list(made.fetch([]))
    except Exception as wrong:
        print(type(wrong).__name__, wrong, flush=True)
    os._exit(0)
os.wait()
"""


def test_another_process_is_refused():
    done = subprocess.run(
        [sys.executable, "-c", USE_AFTER_FORK], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.startswith("WrongProcessError")
    assert "make one after the fork" in done.stdout


def test_asks_show_no_secret():
    assert "sk-" not in repr(ask("http://x/?key=sk-1", headers=(("Authorization", "sk-1"),), body=b"sk-1", key=1))


def test_many_at_once_over_few_connections(fetcher, tmp_path: Path):
    with hostile.serving(hostile.says(hostile.OK)) as server:
        for _ in range(3):
            got = [
                answer
                for part in fetcher.fetch([ask(server.url, key=n) for n in range(300)], at_once=50)
                for answer in part
            ]
            assert sorted(answer.ask.key for answer in got) == list(range(300))
            assert {answer.status for answer in got} == {200}
    assert server.connections <= 50
