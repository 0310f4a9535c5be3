from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracker.core import ids

NOW = datetime(2026, 1, 1, tzinfo=UTC)
times = st.datetimes(datetime(2000, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(key=st.uuids())
def test_a_public_id_reads_back(key: UUID) -> None:
    shown = ids.public("gen", key)
    assert ids.parse("gen", shown) == key
    assert ids.parse("evt", shown) is None
    assert "." not in shown  # Standard Webhooks signs "id.timestamp.body"


@given(now=times, noise=st.integers(0, 2**74 - 1))
def test_ids_are_version_7_of_their_time(now: datetime, noise: int) -> None:
    key = ids.uuid7(now, noise)
    assert (key.version, key.variant) == (7, "specified in RFC 4122")
    assert abs((key.int >> 80) - now.timestamp() * 1000) <= 1
    assert key == ids.uuid7(now, noise)


@given(first=times, later=st.integers(1, 10**9), noise=st.tuples(*[st.integers(0, 2**74 - 1)] * 2))
def test_ids_sort_by_time_inside_and_outside(first: datetime, later: int, noise: tuple[int, int]) -> None:
    a, b = ids.uuid7(first, noise[0]), ids.uuid7(first + timedelta(milliseconds=later + 1), noise[1])
    assert a < b
    assert ids.public("gen", a) < ids.public("gen", b)


def test_ids_of_one_millisecond_differ() -> None:
    assert len({ids.uuid7(NOW) for _ in range(1000)}) == 1000


@pytest.mark.parametrize(
    "text",
    [
        "", "gen", "gen_", "_", "gen_" + "0" * 25, "gen_" + "0" * 27, "gen_" + "z" * 26, "gen_" + "u" * 26, "gen_" + "A" * 26,
        "gen_" + "٣" * 26, "evt_" + "0" * 26, "gen_gen_" + "0" * 22, " gen_" + "0" * 26, "gen_" + "0" * 25 + "\0",
    ],
)  # fmt: skip
def test_what_is_no_id_is_none(text: str) -> None:
    assert ids.parse("gen", text) is None


@given(text=st.text(max_size=40))
def test_parsing_never_raises(text: str) -> None:
    for candidate in (text, "gen_" + text):
        key = ids.parse("gen", candidate)
        assert key is None or ids.public("gen", key) == candidate
