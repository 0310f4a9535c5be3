"""A process that asks many at once under the 1,024 open files, or fewer, that shells and service managers allow at first."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from . import hostile

SOFT, HARD = 100, 2000
ASKING = """
import json, resource, sys
from tracker.core.addresses import Policy
from tracker.net import descriptors
from tracker.net.fetch import Ask, Fetcher
url, asks, before, then = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
exec(before)
fetcher = Fetcher(Policy.of(["127.0.0.0/8"]))
exec(then)
asked = [Ask(n, "GET", url) for n in range(asks)]
answers = [answer for part in fetcher.fetch(asked, at_once=asks) for answer in part]
print(json.dumps([resource.getrlimit(resource.RLIMIT_NOFILE), [answer.failure for answer in answers]]))
"""


class Counting:
    """Answers late, or once `until` are waiting, and knows how many waited at one time."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting = self.most = 0
        self.until, self.patience = 0, 0.7

    def __call__(self, wire, _request) -> None:
        with self._changed:
            self._waiting += 1
            self.most = max(self.most, self._waiting)
            self._changed.notify_all()
            self._changed.wait_for(lambda: 0 < self.until <= self.most, self.patience)
            self._waiting -= 1
        wire.sendall(hostile.OK)


@pytest.fixture
def counting() -> Iterator[tuple[Counting, str]]:
    behaviour = Counting()
    with hostile.serving(behaviour) as server:
        yield behaviour, server.url


def _asked(url: str, asks: int, *, before: str = "", then: str = "") -> tuple[list[int], list[str | None]]:
    """The bounds of open files and what became of each question, of a process that began with SOFT and HARD."""
    done = subprocess.run(
        [sys.executable, "-c", ASKING, url, str(asks), before, then],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (SOFT, HARD)),
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    limits, failures = json.loads(done.stdout)
    return limits, failures


def test_a_process_may_open_as_many_as_the_system_lets_it(counting: tuple[Counting, str]) -> None:
    behaviour, url = counting
    behaviour.until, behaviour.patience = SOFT + 1, 10.0
    limits, failures = _asked(url, 150, before="descriptors.allow_many()")
    assert limits == [HARD, HARD]
    assert failures == [None] * 150
    assert behaviour.most > SOFT


def test_where_it_may_not_open_many_fewer_are_asked_at_once(counting: tuple[Counting, str]) -> None:
    behaviour, url = counting
    limits, failures = _asked(url, 30)
    assert limits == [SOFT, HARD]
    assert failures == [None] * 30, "hosts that could not be reached, they would seem"
    assert 1 < behaviour.most <= SOFT // 8


def test_when_none_is_left_each_question_is_told_of_all_the_same(counting: tuple[Counting, str]) -> None:
    _, url = counting
    few = "resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))"
    _, failures = _asked(
        url,
        300,
        before="resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))\ndescriptors.share = lambda: 300",
        then=few,
    )
    assert len(failures) == 300
    assert set(failures) == {None, "connect"}
