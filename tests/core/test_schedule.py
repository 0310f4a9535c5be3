from __future__ import annotations

from itertools import pairwise
from math import exp, inf, log, sqrt
from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracker.core.schedule import BUCKETS, EDGES, Clock, Evidence, position

ages = st.floats(0, 20_000)
prices = st.floats(0.001, 50)


def learned(events: list[float], exposure: list[float]) -> Clock:
    return Clock(events=list(events), exposure=list(exposure))


def _mixed(seed: int) -> Clock:
    dice = Random(seed)
    return learned(*([dice.random() ** 4 * scale for _ in range(BUCKETS)] for scale in (300, 3000)))


clocks = st.integers(0, 10**6).map(_mixed)


def constant(rate: float) -> Clock:
    """A clock that firmly believes in an exponential law."""
    return Clock(events=[rate * 1e9] * BUCKETS, exposure=[1e9] * BUCKETS)


def test_edges_are_two_seconds_to_an_hour_on_a_log_scale() -> None:
    assert len(EDGES) == BUCKETS + 1
    assert (EDGES[0], EDGES[1]) == (0.0, 2.0)
    assert EDGES[-1] == pytest.approx(3600)
    ratios = {round(b / a, 9) for a, b in pairwise(EDGES[1:])}
    assert len(ratios) == 1


def test_position_agrees_with_the_edges() -> None:
    assert [position(edge) for edge in EDGES] == pytest.approx(range(BUCKETS + 1))


@given(age=ages)
def test_position_lies_in_the_bucket_that_walk_names(age: float) -> None:
    bucket = next(Clock().walk(age, age + 1))[0]
    assert bucket - 1e-6 <= position(age) <= bucket + 1 + 1e-6


def test_ages_outside_the_edges_are_clamped() -> None:
    assert position(-5) == 0
    assert position(10**9) == BUCKETS
    assert [bucket for bucket, _, _ in Clock().walk(-1.0, 1.0)] == [0]


@given(a=ages, length=st.floats(0, 10_000))
def test_walk_covers_the_span_once_and_in_order(a: float, length: float) -> None:
    pieces = list(Clock().walk(a, a + length))
    assert sum(seconds for _, _, seconds in pieces) == pytest.approx(a + length - a, abs=1e-6)
    assert all(hazard > 0 and seconds > 0 for _, hazard, seconds in pieces)
    buckets = [bucket for bucket, _, _ in pieces]
    assert buckets == sorted(set(buckets))


@given(clock=clocks, age=ages, price=prices, factor=st.floats(1, 20), longest=st.floats(1, 300))
def test_the_gap_grows_with_the_price_and_stays_within_longest(
    clock: Clock, age: float, price: float, factor: float, longest: float
) -> None:
    gap, dearer = clock.next_gap(age, price, longest), clock.next_gap(age, price * factor, longest)
    assert 0 < gap <= longest
    assert gap <= dearer + 1e-9
    assert dearer <= longest


@given(rate=st.floats(0.001, 1), price=prices, age=ages)
def test_at_a_constant_hazard_the_gap_is_the_square_root_rule(rate: float, price: float, age: float) -> None:
    assert constant(rate).next_gap(age, price, inf if age > EDGES[-1] else 10_000) == pytest.approx(
        min(sqrt(2 * price / rate), 10_000), rel=1e-6
    )


@given(age=ages, price=prices)
def test_the_doubt_gathered_until_the_next_poll_is_worth_the_price(age: float, price: float) -> None:
    clock = Clock()
    gap = clock.next_gap(age, price, 10_000)
    doubt = suffered = 0.0
    for _, hazard, seconds in clock.walk(age, age + gap):
        suffered += seconds * (doubt + hazard * seconds / 2)
        doubt += hazard * seconds
    assert suffered == pytest.approx(price, rel=1e-6)


def test_gaps_are_the_gaps_at_the_edges() -> None:
    gaps = Clock().gaps(0.5)
    assert [min(gap, 20) for gap in gaps] == [Clock().next_gap(edge, 0.5, 20) for edge in EDGES]
    assert max(gaps) > 20, "whoever reads them bounds them"


@given(a=ages, length=st.floats(0.001, 600), done=st.booleans())
def test_evidence_is_one_end_or_none_and_never_more_time_than_passed(a: float, length: float, done: bool) -> None:
    shown = Clock().evidence(a, a + length, done=done)
    assert sum(ended for _, _, ended, _ in shown) == pytest.approx(1.0 if done else 0.0)
    watched = sum(seconds for *_, seconds in shown)
    assert 0 < watched <= length + 1e-6
    assert done or watched == pytest.approx(length, rel=1e-3)


def test_a_poll_that_covers_no_time_shows_nothing() -> None:
    assert Clock().evidence(30.0, 30.0, done=True) == []


def test_learning_approaches_a_known_law() -> None:
    # Tasks never end before 20 s and then at 0.1 per second; each is polled every 5 s, so that ends are seen as intervals only.
    dice, clock = Random(7), Clock()
    for _ in range(600):
        end, last, age = 20 + dice.expovariate(0.1), 0.0, 5.0
        while age < end:
            clock.observe(last, age, done=False)
            last, age = age, age + 5.0
        clock.observe(last, age, done=True)
    assert clock.hazard(int(position(8))) < 0.002
    assert clock.hazard(int(position(30))) == pytest.approx(0.1, rel=0.35)
    assert clock.expected_remaining(0) == pytest.approx(30, rel=0.1)
    assert (
        8 < clock.expected_remaining(30) < 20
    )  # the tail is rarely visited, so the cold-start guess still lengthens it
    early, ripe = clock.next_gap(0, 0.5, 60), clock.next_gap(25, 0.5, 60)
    assert 15 < early < 26
    assert 2 < ripe < 4.5


def test_a_clock_forgets_when_tasks_become_slower() -> None:
    clock = Clock()
    for _ in range(300):
        clock.observe(0, 10, done=True)
    quick = clock.hazard(int(position(8)))
    for _ in range(900):
        clock.observe(0, 12, done=False)
    assert clock.hazard(int(position(8))) < quick / 10


@given(rate=st.floats(0.005, 1), age=st.floats(0, 4000))
def test_an_exponential_always_remains_its_mean(rate: float, age: float) -> None:
    horizon = 6 * 3600.0
    assert constant(rate).expected_remaining(age) == pytest.approx((1 - exp(-rate * horizon)) / rate, rel=1e-4)


@given(clock=clocks, share=st.floats(0.001, 0.999))
def test_the_age_by_which_a_share_has_ended_is_where_the_rest_survives(clock: Clock, share: float) -> None:
    assert clock.survival(clock.ended_by(share)) == pytest.approx(1 - share, abs=1e-6)


def test_a_memoryless_law_has_nothing_to_gain_and_a_sharp_one_much() -> None:
    assert constant(0.05).gain_limit() == pytest.approx(1.0, rel=0.01)
    sharp = Clock()
    for _ in range(300):
        sharp.observe(0, 55, done=False)
        sharp.observe(55, 60, done=True)
    assert sharp.gain_limit() > 3


looks = st.lists(st.tuples(st.floats(0, 900), st.floats(1, 40), st.booleans()), min_size=1, max_size=8)


@given(looks=looks)
def test_merging_deltas_equals_observing_one_by_one(looks: list[tuple[float, float, bool]]) -> None:
    # Deltas are weighed by the belief of their batch's start, and the old memory fades in one step: equal up to the fading of one batch.
    start = Clock(events=[5.0] * BUCKETS, exposure=[300.0] * BUCKETS)
    merged, observed = learned(start.events, start.exposure), learned(start.events, start.exposure)
    passages, events, exposure = ([0.0] * BUCKETS for _ in range(3))
    for a, length, done in looks:
        for bucket, passed, ended, watched in start.evidence(a, a + length, done=done):
            passages[bucket] += passed
            events[bucket] += ended
            exposure[bucket] += watched
        observed.observe(a, a + length, done=done)
    merged.merge(passages, events, exposure)
    for bucket in range(BUCKETS):
        assert merged.hazard(bucket) == pytest.approx(observed.hazard(bucket), rel=0.08)
    assert sum(merged.events) == pytest.approx(sum(observed.events), rel=0.02)


def test_cold_start_expects_about_twice_what_was_waited() -> None:
    clock = Clock()
    assert clock.hazard(0) == pytest.approx(1 / 30)
    assert clock.next_gap(0, 0.5, 60) == pytest.approx(sqrt(2 * 0.5 * 30), rel=0.05)
    assert log(clock.hazard(0) / clock.hazard(40)) > 1


@given(st.lists(st.tuples(st.floats(0, 5000), st.floats(0, 900), st.booleans()), max_size=30))
@example([(0.0, 5e-324, True)])
def test_evidence_summed_up_is_the_sum_of_what_each_poll_shows(looks: list[tuple[float, float, bool]]) -> None:
    gathered, each = Evidence(), [[0.0, 0.0, 0.0] for _ in range(BUCKETS)]
    for a, length, done in looks:
        shown = Clock().evidence(a, a + length, done=done)
        for bucket, *values in shown:
            each[bucket] = [x + y for x, y in zip(each[bucket], values, strict=True)]
        if done:
            gathered.add(shown)
        else:
            gathered.pending(a, a + length)
    found = [[0.0, 0.0, 0.0] for _ in range(BUCKETS)]
    for bucket, *values in gathered.sums():
        found[bucket] = values
    assert found == [pytest.approx(values, abs=1e-6) for values in each]


def test_evidence_that_could_not_be_stored_is_added_to_what_came_meanwhile() -> None:
    before, after = Evidence(), Evidence()
    before.pending(0.0, 40.0)
    before.add(Clock().evidence(20.0, 60.0, done=True))
    after.pending(10.0, 30.0)
    after.add(before.sums())
    assert sum(watched for *_, watched in after.sums()) == pytest.approx(
        20.0 + sum(watched for *_, watched in before.sums())
    )
    assert sum(ended for _, _, ended, _ in after.sums()) == pytest.approx(1.0)
