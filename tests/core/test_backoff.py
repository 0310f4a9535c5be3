from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.core import backoff

rolls = st.floats(0, 1, exclude_max=True)


def test_the_webhook_schedule_is_the_specifications() -> None:
    assert len(backoff.WEBHOOK_SCHEDULE) == 10
    assert sum(backoff.WEBHOOK_SCHEDULE) == 75 * 3600 + 35 * 60 + 5
    waits = [backoff.next_webhook_attempt(attempts, 0.5) for attempts in range(1, 11)]
    assert waits == [*backoff.WEBHOOK_SCHEDULE[1:], None]


@given(attempts=st.integers(1, 9), roll=rolls, wish=st.none() | st.floats(0, 10**6))
def test_a_receivers_wish_lengthens_but_never_shortens(attempts: int, roll: float, wish: float | None) -> None:
    plain = backoff.next_webhook_attempt(attempts, roll)
    wait = backoff.next_webhook_attempt(attempts, roll, wish)
    assert plain is not None
    assert plain == pytest.approx(backoff.WEBHOOK_SCHEDULE[attempts], rel=0.2)
    assert wait == plain if wish is None else wait == max(plain, min(wish, 3600))


def test_an_own_schedule_ends_where_it_ends() -> None:
    assert backoff.next_webhook_attempt(1, 0.5, schedule=(0, 7)) == 7
    assert backoff.next_webhook_attempt(2, 0.5, schedule=(0, 7)) is None


@given(failures=st.integers(1, 10**6), longest=st.floats(2, 3600), roll=rolls)
def test_failures_double_from_two_seconds_to_the_longest(failures: int, longest: float, roll: float) -> None:
    middle = backoff.after_failures(failures, longest, 0.5)
    assert middle == min(longest, 2.0 ** min(failures, 41))
    assert middle * 0.8 - 1e-9 <= backoff.after_failures(failures, longest, roll) <= middle * 1.2 + 1e-9


@given(age=st.floats(0, 10**7), roll=rolls)
def test_late_checks_are_a_tenth_of_the_age_apart_within_bounds(age: float, roll: float) -> None:
    assert backoff.late_check(age, 0.5) == pytest.approx(min(max(age / 10, 600), 7200))
    assert 600 <= backoff.late_check(age, roll) <= 7200, "however the dice fall"


def test_probes_slow_down_to_half_an_hour() -> None:
    assert [backoff.probe(n) / 60 for n in range(8)] == [1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize(("wish", "wait"), [(-5, 0), (17, 17), (10**9, 3600), (float("inf"), 3600)])
def test_a_wish_is_honoured_up_to_an_hour(wish: float, wait: float) -> None:
    assert backoff.honoured(wish) == wait
