from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.core.times import duration, provider_time, retry_after, rfc3339

NOW = datetime(2026, 1, 1, tzinfo=UTC)
moments = st.datetimes(datetime(2000, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
anything = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=30)
    | st.binary(max_size=5)
    | st.lists(st.integers(), max_size=2)
)


@given(moment=moments)
def test_what_we_write_reads_back(moment: datetime) -> None:
    assert provider_time(rfc3339(moment)) == moment
    assert rfc3339(moment).endswith("Z")


def test_rfc3339_is_utc_to_the_microsecond() -> None:
    assert rfc3339(datetime(2026, 1, 1, 8, tzinfo=timezone(timedelta(hours=8)))) == "2026-01-01T00:00:00.000000Z"


SEED = datetime(2024, 12, 22, 13, 38, 40, 139000, UTC)


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ("2024-12-22T13:38:40.139Z", SEED),
        ("2024-12-22T21:38:40.139+08:00", SEED),
        ("2024-12-22T13:38:40.139", SEED),
        (1734874720139, SEED),
        ("1734874720139", SEED),
        (1734874720, SEED.replace(microsecond=0)),
        ("0001-01-01T00:00:00Z", None),
        (0, None), ("0", None), ("", None), (None, None), (True, None), ("soon", None), ("²", None), ([], None),
        (float("nan"), None), (10**30, None), (-1, None),
    ],
)  # fmt: skip
def test_provider_times(value: object, at: datetime | None) -> None:
    assert provider_time(value) == at


@pytest.mark.parametrize(
    ("value", "span"),
    [
        (90, timedelta(seconds=90)),
        ("90", timedelta(seconds=90)),
        (0.5, timedelta(seconds=0.5)),
        ("PT2H", timedelta(hours=2)),
        ("pt1h30m", timedelta(minutes=90)),
        ("P2DT12H", timedelta(hours=60)),
        ("P1W", timedelta(weeks=1)),
        ("PT0.5S", timedelta(seconds=0.5)),
        ("P", None), ("PT", None), ("P1Y", None), ("P1M", None), ("2h", None), ("", None), (None, None), (True, None),
        ("²", None), (float("nan"), None), (1e300, None), ("9" * 400, None), (f"P{'9' * 400}D", None),
    ],
)  # fmt: skip
def test_durations(value: object, span: timedelta | None) -> None:
    assert duration(value) == span


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120.0),
        (" 1.5 ", 1.5),
        ("Thu, 01 Jan 2026 00:01:30 GMT", 90.0),
        ("Thu, 01 Jan 2026 00:01:30 -0000", 90.0),
        ("Wed, 31 Dec 2025 23:00:00 GMT", 0.0),
        (None, None), ("", None), ("soon", None), ("-5", None), ("²", None),
    ],
)  # fmt: skip
def test_retry_after(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, NOW) == seconds


@given(value=anything)
def test_reading_never_raises(value: object) -> None:
    at = provider_time(value)
    assert at is None or at > datetime(2000, 1, 1, tzinfo=UTC)
    assert duration(value) is None or isinstance(duration(value), timedelta)
    if isinstance(value, str):
        wait = retry_after(value, NOW)
        assert wait is None or wait >= 0


@given(
    text=st.from_regex(r"(Mon, )?\d{1,3} (Jan|Foo) \d{1,6} \d\d:\d\d(:\d\d)? ?([+-]\d{4,12}|GMT|EST)?", fullmatch=True)
)
def test_odd_dates_never_raise(text: str) -> None:
    wait = retry_after(text, NOW)
    assert wait is None or wait >= 0
