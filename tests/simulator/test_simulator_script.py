"""Ids that carry their story, and lives drawn from a seed."""

from __future__ import annotations

import statistics
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as some

from tracker.simulator import ids
from tracker.simulator.clock import Clock
from tracker.simulator.messages import BadRequestError
from tracker.simulator.misbehaviour import MISBEHAVIOURS, Scope, listing
from tracker.simulator.script import REASONS, Lives, Wish, read, split

hundredths = some.integers(0, 2**20 - 1).map(lambda ticks: ticks / 100)


@given(
    start=some.integers(160_000_000_000, 260_000_000_000).map(lambda ticks: ticks / 100),
    queue=hundredths,
    duration=hundredths,
    aspect_ratio=some.sampled_from(ids.ASPECT_RATIOS),
    reason=some.integers(0, 7),
    sequence=some.integers(0, 2**20 - 1),
)
def test_an_id_is_a_uuid_that_holds_its_birth(**birth):
    task_id = ids.encode(ids.Birth(**birth))
    found = ids.decode(task_id)
    assert uuid.UUID(task_id).version == 4
    assert found is not None
    assert found.start == pytest.approx(birth["start"], abs=0.011)
    assert (found.queue, found.duration) == (pytest.approx(birth["queue"]), pytest.approx(birth["duration"]))
    assert (found.aspect_ratio, found.reason, found.sequence) == (
        birth["aspect_ratio"],
        birth["reason"],
        birth["sequence"],
    )


def test_strangers_ids_are_not_ours():
    passed = sum(ids.decode(str(uuid.uuid5(uuid.NAMESPACE_URL, str(number)))) is not None for number in range(500))
    assert passed == 0  # another version of UUID
    fours = (str(uuid.UUID(int=uuid.uuid5(uuid.NAMESPACE_URL, str(number)).int, version=4)) for number in range(20_000))
    assert sum(ids.decode(task_id) is not None for task_id in fours) < 10
    assert ids.decode("") is None
    assert ids.decode("4665A07C-7641-4809-A133-10786201BB56") is None


def test_ids_are_unique_within_one_moment():
    births = (ids.Birth(start=2e9, queue=0, duration=5, sequence=number) for number in range(10_000))
    assert len({ids.encode(birth) for birth in births}) == 10_000


def drawn(seed: int, *, speed: float = 1.0, failures: float = 0.0, count: int = 3_000):
    lives = Lives(Clock(), seed, speed, failures)
    return [lives.submit(Wish()).birth for _ in range(count)]


def test_drawn_durations_are_lumas_and_depend_on_the_seed_alone():
    births = drawn(1)
    totals = sorted(birth.queue + birth.duration for birth in births)
    assert 100 < statistics.fmean(totals) < 122
    assert 88 < totals[1500] < 104
    assert 150 < totals[2850] < 240
    assert [birth.duration for birth in drawn(1, count=50)] == [birth.duration for birth in births[:50]]
    assert [birth.duration for birth in drawn(2, count=50)] != [birth.duration for birth in births[:50]]


def test_speed_divides_and_failures_come_only_when_asked():
    assert sum(birth.reason > 0 for birth in drawn(1)) == 0
    births = drawn(1, speed=12, failures=0.03)
    assert 50 < sum(birth.reason > 0 for birth in births) < 140
    assert 8 < statistics.fmean(birth.queue + birth.duration for birth in births) < 10.5
    assert len({birth.reason for birth in births}) == len(REASONS) + 1


def test_a_prefix_names_misbehaviour_and_strength():
    fault, tail = split("slow_2x_30s-abc-def")
    assert fault is not None
    assert (fault.kind.name, fault.times, fault.seconds, fault.always, tail) == ("slow", 2, 30.0, False, "abc-def")
    always, _ = split("http500_always-1")
    assert always is not None
    assert always.strikes(1_000_000, 1e9)
    for other in ("http500", "nosuch-1", "slow_2y-1", "-1", "http500-", "HTTP500-1"):
        assert split(other) == (None, other)


def test_times_and_windows_end():
    thrice, window = split("http500-1")[0], split("unauthorized_60s-1")[0]
    assert thrice is not None
    assert window is not None
    assert [thrice.strikes(before, 0) for before in range(5)] == [True, True, True, False, False]
    assert (window.strikes(50, 59.9), window.strikes(0, 60)) == (True, False)


def test_a_readable_id_is_born_when_first_asked_about():
    clock = Clock()
    lives = Lives(clock, 1, 12, 0)
    first = lives.find("drip-anything")
    assert first is not None
    clock.advance(100)
    again = lives.find("drip-anything")
    assert again == first
    assert lives.find("anything") is None
    assert read("drip-anything") is None


def test_a_submit_of_unknown_misbehaviour_is_refused():
    with pytest.raises(BadRequestError, match="no misbehaviour 'nonsense'"):
        Lives(Clock(), 1, 12, 0).submit(Wish(misbehaviour="nonsense"))


def test_every_misbehaviour_has_one_line_and_can_be_a_prefix():
    lines = listing().splitlines()
    assert len(lines) == len(MISBEHAVIOURS)
    for (name, row), line in zip(MISBEHAVIOURS.items(), lines, strict=True):
        assert line.startswith(name)
        assert line.endswith(row.sentence)
        assert split(f"{name}-1")[0] is not None
        assert (row.spoil is not None) == (row.scope is Scope.ANSWER) or row.scope is Scope.FILE
