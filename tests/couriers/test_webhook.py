"""The webhook courier: what counts as success, what is kept of the answer, and that it always comes back."""

from __future__ import annotations

import pytest

from tests.net import hostile
from tracker.core.addresses import Policy
from tracker.couriers import webhook
from tracker.couriers.webhook import Attempt
from tracker.net.post import Poster


@pytest.fixture(scope="module")
def poster():
    made = Poster(Policy.of(["127.0.0.0/8", "::1/128"]))
    yield made
    made.close()


def post(poster, url: str, deadline: float = 5.0, **fields) -> Attempt:
    headers = {"webhook-id": "evt_1"}
    poster.launch([webhook.post("key", url=url, body=b'{"type":"ping"}', headers=headers, deadline=deadline, **fields)])
    landed = []
    while poster.flying:
        landed += poster.landed(0.5)
    (posted,) = landed
    assert posted.post.key == "key"
    return webhook.attempt(posted)


def test_a_2xx_is_delivered(poster):
    with hostile.serving(hostile.says(b"HTTP/1.1 204 No Content\r\n\r\n")) as server:
        attempt = post(poster, server.url)
        assert post(poster, server.url).delivered
    assert attempt.delivered
    assert (attempt.status_code, attempt.error_class, attempt.response, attempt.retry_after) == (204, None, "", None)
    head = server.requests[0]
    assert head.endswith(b'\r\n\r\n{"type":"ping"}')
    for line in (
        b"POST / HTTP/1.1",
        b"webhook-id: evt_1",
        b"Content-Type: application/json",
        b"User-Agent: generation-tracker/",
        b"Accept-Encoding: identity",
    ):
        assert line in head
    assert server.connections == 1


@pytest.mark.parametrize(
    ("answer", "status", "error_class", "retry_after"),
    [
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/\r\nContent-Length: 2\r\n\r\nhi",
            302,
            "redirect",
            None,
        ),
        (b"HTTP/1.1 304 Same\r\n\r\n", 304, "redirect", None),
        (b"HTTP/1.1 410 Gone\r\nContent-Length: 2\r\n\r\nhi", 410, "status", None),
        (b"HTTP/1.1 429 Slow\r\nRetry-After: 30\r\nContent-Length: 2\r\n\r\nhi", 429, "status", 30.0),
        (b"HTTP/1.1 500 No\r\nConnection: close\r\n\r\nhi", 500, "status", None),
    ],
)
def test_anything_else_is_not(poster, answer, status, error_class, retry_after):
    with hostile.serving(hostile.then_closes(answer)) as server:
        attempt = post(poster, server.url)
    assert (attempt.status_code, attempt.error_class, attempt.retry_after) == (status, error_class, retry_after)
    assert attempt.response == ("" if status == 304 else "hi")
    assert server.connections == 1


@pytest.mark.parametrize(
    "behaviour",
    [
        hostile.drips(b"HTTP/1.1 200 OK\r\n\r\n"),
        hostile.drips(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", drop=b"1\r\nx\r\n"),
        hostile.resets(b"HTTP/1.1 202 OK\r\nContent-Length: 100\r\n\r\nxx"),
        hostile.falls_silent(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nxx"),
        hostile.floods(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"?"),
    ],
)
def test_a_2xx_is_success_whatever_its_body_does(poster, behaviour):
    with hostile.serving(behaviour) as server, hostile.Clock() as clock:
        attempt = post(poster, server.url, deadline=0.5)
    assert attempt.delivered
    assert set(attempt.response) <= {"x"}
    assert clock.seconds < 2.0


def test_an_endless_body_is_closed_at_2_kb_long_before_the_deadline(poster):
    with hostile.serving(hostile.floods(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 65536)) as server, hostile.Clock() as clock:
        attempt = post(poster, server.url, deadline=10.0)
    assert attempt.delivered
    assert attempt.response == "x" * 2048
    assert clock.seconds < 2.0


def test_the_kept_answer_is_text_that_postgres_takes(poster):
    body = b"a\0b\xff\xfe\xed\xa0\x80"
    with hostile.serving(
        hostile.says(b"HTTP/1.1 500 No\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    ) as server:
        text = post(poster, server.url).response
    assert text.startswith("a\ufffdb\ufffd")
    assert "\0" not in text
    text.encode("utf-8")


@pytest.mark.parametrize(
    ("behaviour", "error_class"),
    [
        (hostile.falls_silent(), "timeout"),
        (hostile.drips(b"HTTP/1.1 200 OK\r\n", drop=b"X: y\r\n"), "timeout"),
        (hostile.floods(b"HTTP/1.1 200 OK\r\n", b"X: " + b"y" * 1000 + b"\r\n"), "too_large"),
        (hostile.resets(), "protocol"),
    ],
)
def test_without_a_status_there_is_a_class_and_a_sentence(poster, behaviour, error_class):
    with hostile.serving(behaviour) as server, hostile.Clock() as clock:
        attempt = post(poster, server.url, deadline=0.5)
    assert (attempt.status_code, attempt.error_class, attempt.response) == (None, error_class, "")
    assert attempt.detail
    assert clock.seconds < 2.0
    assert 0 <= attempt.duration_ms <= 2000


def test_plain_http_and_private_addresses_are_refused():
    closed = Poster(Policy.of([]), look_up=hostile.resolves_to("8.8.8.8"))
    for url in ("http://example.com/", "https://10.0.0.1/", "https://[::1]/", "nonsense"):
        assert post(closed, url).error_class == "address"
    closed.close()
