"""The guarded session: what it refuses to connect to, and that nothing outlives its deadline."""

from __future__ import annotations

import concurrent.futures
import socket
import subprocess
import sys
import threading

import pytest

from tests.net import hostile
from tests.net.calls import LOOPBACK, read_all, refused
from tracker.core.addresses import Policy
from tracker.net import retry_after
from tracker.net.guard import GuardedSession


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return hostile.Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def session(authority):
    made = GuardedSession(LOOPBACK, ca_file=str(authority.file))
    yield made
    made.close()


def test_a_request_keeps_its_host_and_reuses_its_connection(session):
    with hostile.serving(hostile.says(hostile.OK)) as server:
        for _ in range(3):
            assert (
                read_all(session.open("POST", server.url + "a?b=c", headers={"X-A": "1"}, body=b"hi", deadline=5.0))
                == b"ok"
            )
    head = server.requests[0]
    assert head.startswith(b"POST /a?b=c HTTP/1.1\r\n")
    assert head.endswith(b"\r\n\r\nhi")
    for line in (
        f"Host: localhost:{server.port}".encode(),
        b"X-A: 1",
        b"Accept-Encoding: identity",
        b"Content-Length: 2",
    ):
        assert line in head
    assert server.connections == 1


def test_cookies_proxies_and_netrc_are_left_alone(session, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine localhost login a password b\n")
    for name, value in {
        "http_proxy": "http://127.0.0.1:1",
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    with hostile.serving(hostile.says(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nContent-Length: 0\r\n\r\n")) as server:
        for _ in range(2):
            assert read_all(session.open("GET", server.url, deadline=5.0)) == b""
    assert b"ookie" not in server.requests[1]
    assert b"uthorization" not in server.requests[1]


def test_redirects_are_not_followed(session):
    answer = b"HTTP/1.1 307 Go\r\nLocation: http://169.254.169.254/\r\nContent-Length: 0\r\n\r\n"
    with hostile.serving(hostile.says(answer)) as server, session.open("GET", server.url, deadline=5.0) as reply:
        assert (reply.status, reply.headers["location"]) == (307, "http://169.254.169.254/")
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "answers", [["10.0.0.1"], ["8.8.8.8", "169.254.169.254"], ["::ffff:10.0.0.1"], ["fe80::1%lo"], ["2002:7f00:1::"]]
)
def test_one_forbidden_answer_refuses_all(answers):
    session = GuardedSession(Policy.of([]), look_up=hostile.resolves_to(*answers))
    wrong = refused(session, "https://rebind.example/")
    assert wrong.error_class == "address"
    assert "TRACKER_EGRESS_ALLOW" in str(wrong)


def test_a_name_that_changes_between_look_ups_never_leads_inside():
    """What is connected to is what was vetted: each connection looks up once, and a later bad answer is refused."""
    with (
        hostile.serving(hostile.then_closes(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")) as outside,
        hostile.serving(hostile.says(hostile.OK), host="127.0.0.2") as inside,
    ):
        answers = iter([["127.0.0.1"], ["127.0.0.2"], ["127.0.0.1", "127.0.0.2"]])
        session = GuardedSession(Policy.of(["127.0.0.1/32"]), look_up=lambda *_: next(answers))
        assert read_all(session.open("GET", f"http://rebind.example:{outside.port}/", deadline=5.0)) == b""
        for _ in range(2):
            assert refused(session, f"http://rebind.example:{inside.port}/").error_class == "address"
        assert (outside.connections, inside.connections) == (1, 0)


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]", "localhost", "\uff11\uff12\uff17.0.0.1", "0"],
)
def test_no_spelling_of_loopback_is_connected_to(host):
    session = GuardedSession(Policy.of([]))
    with hostile.serving(hostile.says(hostile.OK)) as server:
        assert refused(session, f"http://{host}:{server.port}/").error_class == "address"
    assert server.connections == 0


def test_ports_and_plain_http():
    session = GuardedSession(Policy.of([]), look_up=hostile.resolves_to("192.0.1.1"))
    assert "TRACKER_EGRESS_PORTS" in str(refused(session, "https://example.com:22/"))
    assert "https://" in str(refused(session, "http://example.com/", https_only=True))


def test_a_connection_kept_from_a_plain_download_does_not_serve_who_wants_https():
    policy = Policy.of(["127.0.0.1/32"])
    session = GuardedSession(policy)
    with hostile.serving(hostile.says(hostile.OK)) as server:
        assert read_all(session.open("GET", server.url, deadline=5.0)) == b"ok"
        object.__setattr__(policy, "allow", ())  # as if the peer had been public all along
        assert refused(session, server.url, https_only=True).error_class == "address"
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "ftp://localhost/",
        "http://a@localhost/",
        "http://",
        "http://localhost:99999/",
        "http://local host/",
        "file:///etc/passwd",
    ],
)
def test_what_is_no_url_is_refused_before_any_look_up(url):
    def look_up(host: str, port: int) -> list[str]:
        raise AssertionError(host)

    assert refused(GuardedSession(LOOPBACK, look_up=look_up), url).error_class == "address"


@pytest.mark.parametrize(
    "headers",
    [{"X": "a\r\nY: b"}, {"X\n": "a"}, {"Host": "other"}, {"Transfer-Encoding": "chunked"}, {"X": "\u2603"}, {"": "a"}],
)
def test_headers_that_would_change_the_request_are_refused(session, headers):
    with hostile.serving(hostile.says(hostile.OK)) as server:
        assert refused(session, server.url, headers=headers).error_class == "protocol"
    assert server.connections == 0


def test_tls_verifies_name_time_and_authority(session, authority):
    with hostile.serving(hostile.says(hostile.OK), authority.context()) as server:
        for _ in range(2):
            assert read_all(session.open("GET", server.url, deadline=5.0)) == b"ok"
        assert server.connections == 1
    for context in (authority.context("other.example"), authority.context(expired=True), hostile.trustme_stranger()):
        with hostile.serving(hostile.says(hostile.OK), context) as bad:
            assert refused(session, bad.url).error_class == "tls"
        assert bad.requests == []


def test_the_name_asked_for_is_the_name_verified(authority):
    """The connection goes to an address; SNI and the certificate's name stay those of the URL."""
    names: list[str] = []
    context = authority.context("hooks.example")
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    session = GuardedSession(LOOPBACK, ca_file=str(authority.file), look_up=hostile.resolves_to("127.0.0.1"))
    with hostile.serving(hostile.says(hostile.OK), context) as server:
        assert read_all(session.open("GET", f"https://hooks.example:{server.port}/", deadline=5.0)) == b"ok"
        assert refused(session, f"https://other.example:{server.port}/").error_class == "tls"
    assert names == ["hooks.example", "other.example"]
    assert f"Host: hooks.example:{server.port}".encode() in server.requests[0]


def test_an_endpoints_own_ca_is_the_only_one_trusted_for_it(authority):
    session = GuardedSession(LOOPBACK)
    with hostile.serving(hostile.says(hostile.OK), authority.context()) as server:
        assert refused(session, server.url).error_class == "tls"
        assert read_all(session.open("GET", server.url, deadline=5.0, ca=authority.pem)) == b"ok"
        assert refused(session, server.url).error_class == "tls"  # the verified connection is not shared
        assert "PEM" in str(refused(session, server.url, ca="nonsense"))


def test_what_is_unreachable(session):
    with hostile.serving(hostile.says(hostile.OK)) as server:
        pass
    assert refused(session, server.url).error_class == "connect"
    assert refused(session, "http://does-not-exist.invalid/").error_class == "dns"
    assert (
        refused(GuardedSession(LOOPBACK, look_up=hostile.resolves_to()), "http://empty.example/").error_class == "dns"
    )


def test_the_next_address_is_tried_when_one_is_down(authority):
    with hostile.serving(hostile.says(hostile.OK)) as server:
        session = GuardedSession(LOOPBACK, look_up=hostile.resolves_to("127.0.0.3", "127.0.0.1"))
        assert read_all(session.open("GET", f"http://two.example:{server.port}/", deadline=5.0)) == b"ok"


def test_a_kept_alive_connection_that_died_is_replaced(session):
    gone = threading.Event()

    def once(wire, _request):
        wire.sendall(hostile.OK)
        if not gone.is_set():
            gone.set()
            hostile.read_request(wire)  # the second request on this connection is never answered
            raise OSError

    with hostile.serving(once) as server:
        for _ in range(2):
            assert read_all(session.open("POST", server.url, body=b"x", deadline=5.0)) == b"ok"
    assert server.connections == 2


def test_64_threads_share_one_session(session):
    def echo(wire, request):
        body = request.partition(b"\r\n\r\n")[2]
        wire.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    def post(number: int) -> bool:
        body = str(number).encode() * 50
        return read_all(session.open("POST", server.url, body=body, deadline=20.0)) == body

    with hostile.serving(echo) as server, concurrent.futures.ThreadPoolExecutor(64) as pool:
        assert all(pool.map(post, range(1000)))
    assert server.connections <= 64


USE_AFTER_FORK = """
import os, sys
from tracker.core.addresses import Policy
from tracker.net.guard import GuardedSession

made = GuardedSession(Policy())
if os.fork() == 0:
    try:
        made.open("GET", "http://localhost:1/", deadline=1.0)
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


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "120"}, 120.0),
        ({"retry-after": " 0 "}, 0.0),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT", "date": "Fri, 31 Dec 1999 23:58:59 GMT"}, 60.0),
        ({"retry-after": "Fri, 31 Dec 1999 23:59:59 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-5"}, None),
        ({"retry-after": "9" * 400}, 999999999.0),
        ({}, None),
    ],
)
def test_retry_after(headers, seconds):
    assert retry_after.seconds(headers) == seconds


def test_ipv6_hosts_are_written_in_brackets(session):
    with hostile.serving(hostile.says(hostile.OK), host="::1") as server:
        assert read_all(session.open("GET", f"http://[::1]:{server.port}/", deadline=5.0)) == b"ok"
    assert f"Host: [::1]:{server.port}".encode() in server.requests[0]


def test_a_request_leaves_in_one_piece(session):
    """Head and body in one packet: the receiver wakes once, and a slow one is not kept waiting for the rest."""
    pieces: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, concurrent.futures.ThreadPoolExecutor(1) as pool:
        reply = pool.submit(
            lambda: session.open("POST", f"http://127.0.0.1:{listener.getsockname()[1]}/", body=b"hi", deadline=5.0)
        )
        wire, _ = listener.accept()
        with wire:
            pieces.append(wire.recv(65536))
            wire.sendall(hostile.OK)
            assert read_all(reply.result(5)) == b"ok"
    assert pieces[0].endswith(b"\r\n\r\nhi")
