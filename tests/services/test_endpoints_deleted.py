"""Endpoints that are deleted with all that was ever sent to them: in slices, whatever breaks off, and with nothing of anybody else."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from tracker.errors import NotFoundError
from tracker.store import deliveries as stored

from .conftest import Place
from .test_delivery_flow import attempts, deliveries, endpoint, events


@pytest.fixture(autouse=True)
def _slices_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracker.services.endpoints.CLEARED_AT_ONCE", 3)


@pytest.mark.parametrize("count", [0, 1, 3, 10])
def test_it_goes_with_its_deliveries_and_attempts_and_others_keep_theirs(
    place: Place, receiver: Any, count: int
) -> None:
    it, other = endpoint(place, receiver), endpoint(place, receiver)
    if count:
        events(place, count)
        place.send()
    place.services.endpoints.delete(place.project, it)
    with pytest.raises(NotFoundError):
        place.services.endpoints.get(place.project, it)
    assert deliveries(place, endpoint_id=it) == []
    kept = deliveries(place, endpoint_id=other)
    assert len(kept) == count
    assert {a.delivery_id for a in attempts(place)} == {d.id for d in kept}
    assert place.scalar("SELECT count(*) FROM receivers WHERE endpoint_id = :id", id=it) == 0


def test_no_statement_looks_at_more_than_a_slice(place: Place, receiver: Any) -> None:
    it, _ = endpoint(place, receiver), endpoint(place, receiver)
    events(place, 10)
    left = [len(deliveries(place, endpoint_id=it))]
    after = stored.UUID(int=0)
    while after is not None:
        with place.services.database.transaction() as tx:
            after = stored.clear(tx, place.project, it, after, 3)
        left.append(len(deliveries(place, endpoint_id=it)))
    assert left[-1] == 0
    assert len(left) == 1 + 20 // 3 + 1, "twenty deliveries, of which ten are its own, in slices of three"
    assert all(0 <= before - now <= 3 for before, now in pairwise(left))


def test_one_that_broke_off_gets_nothing_more_and_goes_at_the_next_try(
    place: Place, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    it = endpoint(place, receiver)
    events(place, 10, "before")
    clear, slices = stored.clear, iter(range(3))

    def dies(*arguments: Any) -> Any:
        if next(slices, None) is None:
            raise ConnectionError
        return clear(*arguments)

    with monkeypatch.context() as fault:
        fault.setattr(stored, "clear", dies)
        with pytest.raises(ConnectionError):
            place.services.endpoints.delete(place.project, it)
    found = place.services.endpoints.get(place.project, it)
    assert not found.enabled
    assert "delete it again" in str(found.disabled_reason)
    assert len(deliveries(place, endpoint_id=it)) == 1
    events(place, 1, "after")
    place.send()
    assert receiver.got == []
    place.services.endpoints.delete(place.project, it)
    assert deliveries(place, endpoint_id=it) == []
