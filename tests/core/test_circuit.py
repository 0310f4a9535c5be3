"""The circuit of a webhook receiver: opened by silence alone, closed by any success, and never shut for long."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.core import circuit
from tracker.core.circuit import HEALTHY, Health, Outcome

START = datetime(2026, 1, 1, tzinfo=UTC)
TIMEOUT = Outcome("timeout", None, None)
OK = Outcome(None, 204, None)
ERROR = Outcome("status", 500, None)

outcomes = st.one_of(
    st.just(OK),
    st.sampled_from(["dns", "address", "connect", "tls", "timeout", "protocol", "too_large"]).map(
        lambda c: Outcome(c, None, None)
    ),
    st.builds(Outcome, st.just("status"), st.integers(400, 599), st.none() | st.floats(0, 1e9)),
    st.just(Outcome("redirect", 302, None)),
)


def lived(found: list[Outcome], every: float = 10.0, roll: float = 0.5) -> Health:
    health = HEALTHY
    for n, outcome in enumerate(found):
        health = circuit.after(health, outcome, START + timedelta(seconds=n * every), roll)
    return health


@given(st.lists(outcomes))
def test_a_success_makes_healthy_whatever_was_before(before):
    health = lived([*before, OK])
    assert replace(health, asked_until=None) == HEALTHY


def test_what_a_receiver_asked_for_is_not_taken_back_by_what_was_under_way():
    asked = START + timedelta(seconds=120)
    busy = Outcome("status", 429, 120.0)
    for meanwhile in (OK, ERROR, TIMEOUT, Outcome("status", 503, 1.0)):
        assert lived([busy, meanwhile], every=1.0).asked_until == asked
    assert lived([busy, Outcome("status", 503, 300.0)], every=1.0).asked_until == START + timedelta(seconds=301)


@given(st.lists(outcomes, max_size=50), st.floats(0, 1, exclude_max=True))
def test_nobody_is_left_in_peace_for_more_than_an_hour(found, roll):
    health = lived(found, roll=roll)
    last = START + timedelta(seconds=10 * (len(found) - 1))
    assert all(
        until is None or until - last <= timedelta(hours=1) for until in (health.quiet_until, health.asked_until)
    )


@given(st.lists(outcomes))
def test_the_first_failure_since_the_last_success_is_remembered(found):
    since = None
    for n, outcome in enumerate(found):
        since = None if outcome.error_class is None else since or START + timedelta(seconds=10 * n)
    assert lived(found).failing_since == since


def test_silence_opens_it_and_the_probes_get_rarer():
    assert lived([TIMEOUT] * (circuit.OPENS - 1)).quiet_until is None
    waits = []
    for n in range(circuit.OPENS, circuit.OPENS + 12):
        health = lived([TIMEOUT] * n)
        assert health.quiet_until is not None
        waits.append((health.quiet_until - START - timedelta(seconds=10 * (n - 1))).total_seconds())
    assert waits[:3] == [5, 10, 20]
    assert waits == sorted(waits)
    assert waits[-1] == circuit.LONGEST_QUIET


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_receiver_counts_as_silent(status):
    assert lived([Outcome("status", status, None)] * circuit.OPENS).quiet_until is not None


def test_a_receiver_that_answers_badly_but_answers_is_not_left_in_peace():
    assert lived([ERROR] * 100) == Health(0, None, START)
    assert lived([*[TIMEOUT] * 4, ERROR, *[TIMEOUT] * 4]).quiet_until is None


@pytest.mark.parametrize(("status", "held"), [(429, True), (503, True), (500, False), (502, False)])
def test_retry_after_is_about_the_whole_receiver_where_it_is_overloaded(status, held):
    health = lived([Outcome("status", status, 120.0)])
    assert (health.asked_until == START + timedelta(seconds=120)) is held
    assert health.quiet_until is None


def test_worn_out_after_five_days_without_a_success():
    health = lived([ERROR])
    assert not circuit.worn_out(HEALTHY, START, circuit.WORN_OUT)
    assert not circuit.worn_out(health, START + timedelta(days=5) - timedelta(seconds=1), circuit.WORN_OUT)
    assert circuit.worn_out(health, START + timedelta(days=5), circuit.WORN_OUT)


def test_nobody_is_worn_out_before_a_schedule_of_its_own_is_through():
    day = 86_400.0
    assert circuit.patience(circuit.WORN_OUT, None) == circuit.WORN_OUT
    assert circuit.patience(circuit.WORN_OUT, [0, day]) == circuit.WORN_OUT
    assert circuit.patience(circuit.WORN_OUT, [0, 5 * day, 5 * day]) == timedelta(days=12), "with its jitter"
