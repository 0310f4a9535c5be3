"""Threads for slow batches: quick ones end with their caller, slow ones are left, a full crew makes the caller wait."""

from __future__ import annotations

import threading
import time

import pytest

from tracker.services.crew import LEAST_PATIENCE, PATIENCE, Crew, patience


@pytest.fixture
def gate() -> threading.Event:
    return threading.Event()


def test_what_is_quick_ends_with_its_caller_and_raises_to_it() -> None:
    crew, done = Crew(), []
    assert crew.see_through(lambda: done.append(1), patience=5)
    assert done == [1]
    with pytest.raises(ZeroDivisionError):
        crew.see_through(lambda: print(1 // 0), patience=5)
    crew.close(5)


def test_what_is_slow_is_left_and_seen_through_before_the_end(gate: threading.Event) -> None:
    crew, done = Crew(), []

    def slow() -> None:
        gate.wait(10)
        done.append("slow")

    assert not crew.see_through(slow, patience=0.01)
    assert crew.see_through(lambda: done.append("quick"), patience=5), "the slow one holds nobody up"
    gate.set()
    crew.close(5)
    assert done == ["quick", "slow"]


def test_who_has_half_a_crew_out_leaves_what_comes_next_to_others(gate: threading.Event) -> None:
    crew = Crew(threads=4)

    def stayed() -> float:
        began = time.monotonic()
        assert not crew.see_through(lambda: gate.wait(10) and None, patience=0.01)
        return time.monotonic() - began

    quick, still_quick, patient = stayed(), stayed(), stayed()
    assert max(quick, still_quick) < PATIENCE <= patient
    gate.set()
    crew.close(5)


def test_the_smaller_a_batch_the_sooner_its_caller_leaves() -> None:
    assert patience(1) == patience(400) == LEAST_PATIENCE
    assert patience(1000) == PATIENCE / 2
    assert patience(2000) == patience(8000) == PATIENCE


def test_a_full_crew_makes_the_caller_wait(gate: threading.Event) -> None:
    crew, began = Crew(threads=1), threading.Event()
    crew.see_through(lambda: gate.wait(10) and None, patience=0.01)
    caller = threading.Thread(target=crew.see_through, args=(began.set,))
    caller.start()
    assert not began.wait(0.1)
    gate.set()
    assert began.wait(5)
    caller.join()
    crew.close(5)


def test_what_fails_after_it_was_left_is_logged(gate: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    crew = Crew()

    def fail() -> None:
        gate.wait(10)
        raise ValueError("the database went away")

    crew.see_through(fail, patience=0.01)
    gate.set()
    crew.close(5)
    assert "a slow batch failed" in caplog.text


def test_what_hangs_does_not_keep_the_process_from_its_end(gate: threading.Event) -> None:
    crew = Crew(threads=1)
    assert not crew.see_through(lambda: gate.wait(30), patience=0.01)
    began = time.monotonic()
    caller = threading.Thread(target=crew.see_through, args=(lambda: pytest.fail("nobody was free for it"),))
    caller.start()
    crew.stop()
    caller.join(5)
    crew.close(0.1)
    assert time.monotonic() - began < 5
    gate.set()
