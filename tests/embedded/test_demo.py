"""The demonstration's own judgement: it must not be content with less than it promises."""

import http.client
import io
import json
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from rich.console import Console

from tracker.core import signing
from tracker.embedded.demo import COMPLETED, Demonstration, Example
from tracker.embedded.loopback import Loopback
from tracker.embedded.receiver import Receiver
from tracker.embedded.screen import Screen
from tracker.embedded.story import Story, table, verdict

SECRET = signing.new_secret()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver(SECRET)
    yield found
    found.close()


def send(receiver: Receiver, event: dict[str, object], *, secret: str = SECRET, identity: str = "evt_1") -> int:
    body, address = json.dumps(event).encode(), urlsplit(receiver.url)
    connection = http.client.HTTPConnection("127.0.0.1", address.port or 0, timeout=10)
    connection.request("POST", address.path, body, signing.headers([secret], identity, int(time.time()), body))
    status = connection.getresponse().status
    connection.close()
    return status


def test_the_receiver_believes_only_what_is_signed_and_counts_each_event_once(receiver: Receiver) -> None:
    event: dict[str, object] = {"type": COMPLETED, "timestamp": "2026-01-01T00:00:00Z", "data": {"id": "gen_1"}}
    assert send(receiver, event, secret=signing.new_secret()) == 400
    assert receiver.types("gen_1") == set()
    assert [send(receiver, event), send(receiver, event)] == [204, 204]
    assert receiver.types("gen_1") == {COMPLETED}
    assert receiver.types("gen_2") == set()
    assert (len(receiver.events), receiver.refused) == (1, 1)


@pytest.mark.parametrize(
    ("example", "missing"),
    [
        (Example("p", "gen_1", "completed", webhook=True, checked=True), ""),
        (Example("p", "gen_1", "completed", webhook=False, checked=True), "has no verified webhook"),
        (Example("p", "gen_1", "completed", webhook=True, checked=False), "has no stored file that could be checked"),
        (
            Example("p", "gen_1", "processing"),
            "is still processing and has no verified webhook and has no stored file that could be checked",
        ),
        (Example("p", "gen_1", "failed", wrong="ended as failed (x)"), "ended as failed (x)"),
    ],
)
def test_an_example_says_what_it_still_lacks(example: Example, missing: str) -> None:
    assert example.missing == missing
    assert example.done == (not missing or bool(example.wrong))


def test_a_demonstration_without_a_server_ends_in_time_and_says_why() -> None:
    nobody = Loopback("http://127.0.0.1:9", "trk_secret")
    demonstration = Demonstration(nobody, nobody, seconds=0.5)
    demonstration.run()
    assert demonstration.finished.is_set()
    assert demonstration.missing.startswith("the demonstration broke off (")
    assert "trk_secret" not in demonstration.missing


def test_the_story_without_a_terminal_is_one_line_for_each_change_and_a_verdict() -> None:
    output = io.StringIO()
    screen = Screen(Console(file=output, force_terminal=False, soft_wrap=True))
    nobody = Loopback("http://127.0.0.1:9", "")
    demonstration = Demonstration(
        nobody, nobody, examples=[Example("a boat", "gen_1", "queued", began=time.monotonic())]
    )
    story = Story(demonstration, screen)
    for state, times in (("queued", 2), ("processing", 2)):
        demonstration.examples[0].state = state
        assert [story.tell() for _ in range(times)] == [False, False]
    demonstration.finished.set()
    assert story.tell()
    assert story.tell()
    lines = output.getvalue().splitlines()
    assert [line.split()[2] for line in lines[:2]] == ["queued", "processing"]
    assert lines[2].endswith(verdict(demonstration))
    assert len(lines) == 3


def test_the_table_shows_every_example() -> None:
    output = io.StringIO()
    Console(file=output, width=140).print(
        table(
            [
                Example("a boat", "gen_1", "completed", 1.0, 7, webhook=True, file="12 kB ok", checked=True),
                Example("a fox"),
            ]
        )
    )
    shown = output.getvalue()
    assert all(
        word in shown for word in ("gen_1", "a boat", "completed", "7", "verified", "12 kB ok", "a fox", "submitting")
    )
