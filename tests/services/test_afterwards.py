"""What is left for later: not waited for, done once however often it is asked for, and not lost at an orderly end."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from threading import Event, get_ident

import pytest

from tracker.afterwards import Afterwards

SOON = 5.0


@pytest.fixture
def later() -> Iterator[Afterwards]:
    made = Afterwards()
    yield made
    made.close(SOON)


def test_the_caller_does_not_wait_and_another_thread_works(later: Afterwards) -> None:
    may_end, done, who = Event(), Event(), []

    def slow() -> None:
        may_end.wait(SOON)
        who.append(get_ident())
        done.set()

    later.do("slow", slow)
    assert not done.is_set(), "the caller went on while the work waits"
    may_end.set()
    assert done.wait(SOON)
    assert who != [get_ident()]


def test_what_is_asked_for_again_before_its_turn_is_done_once(later: Afterwards) -> None:
    begun, may_end, done = Event(), Event(), []

    def first() -> None:
        begun.set()
        may_end.wait(SOON)

    later.do("first", first)
    assert begun.wait(SOON)
    for number in range(5):
        later.do("ring", lambda number=number: done.append(number))
    later.do("other", lambda: done.append("other"))
    may_end.set()
    later.close(SOON)
    assert done == [4, "other"]


def test_what_is_asked_for_while_it_is_being_done_is_done_again(later: Afterwards) -> None:
    begun, may_end, done = Event(), Event(), []

    def ring() -> None:
        begun.set()
        may_end.wait(SOON)
        done.append(1)

    later.do("ring", ring)
    assert begun.wait(SOON)
    later.do("ring", ring)
    may_end.set()
    later.close(SOON)
    assert done == [1, 1], "who asked after it began may have made work that it did not see"


def test_a_failure_is_logged_and_the_next_one_is_done(later: Afterwards, caplog: pytest.LogCaptureFixture) -> None:
    done = Event()
    with caplog.at_level(logging.ERROR):
        later.do("bad", lambda: 1 / 0)
        later.do("good", done.set)
        assert done.wait(SOON)
    assert "ZeroDivisionError" in caplog.text


def test_the_end_waits_no_longer_than_its_patience_and_later_work_is_done_at_once(later: Afterwards) -> None:
    may_end, done = Event(), []
    later.do("hanging", lambda: may_end.wait(SOON))
    later.close(0.05)
    later.do("late", lambda: done.append(get_ident()))
    assert done == [get_ident()]
    may_end.set()
