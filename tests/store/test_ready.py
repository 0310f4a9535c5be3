"""Where a claim begins to look: behind what was claimed before, and never past what is due."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from tracker.store import ready
from tracker.store.ready import OVERLAP, Starts

from .conftest import Rows

LATE = "interval '1 h'"


@pytest.fixture(autouse=True)
def _slow_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a test takes, nothing lapses in it."""
    monkeypatch.setattr(ready, "LAPSE", float("inf"))


class LostError(Exception):
    """The connection broke before the commit."""


def looked_at(rows: Rows, starts: Starts) -> int:
    """Pages of the index that are looked at to see whether anything is due."""
    counted = text("SELECT pg_stat_get_xact_blocks_fetched('polls_due'::regclass)")
    now = rows.now()
    with rows.database.transaction() as tx:
        before = tx.execute(counted).scalar_one()
        [found] = ready.ready(tx, now, starts)
        after = tx.execute(counted).scalar_one()
    assert found.since
    return int(after - before)


def test_what_was_claimed_is_not_stepped_over_again(rows: Rows) -> None:
    """Without the hint, all the places are that were left since the last vacuum."""
    credential, clock, starts = rows.credential("a"), rows.clock(), Starts()
    rows.polls(24_000, credential, clock, due="(1 + random()) * interval '1 h'")
    rows.run("ALTER TABLE polls SET (autovacuum_enabled = off)")
    hinted, without = [], []
    for _ in range(10):
        assert len(rows.claim(2000, starts=starts)) == 2000
        looked_at(rows, starts)  # finds what has just been claimed, and marks it
        hinted.append(looked_at(rows, starts))
        without.append(looked_at(rows, Starts()))
    assert max(hinted) <= 5
    assert without[-1] >= 50


def test_accounts_and_lanes_begin_each_at_their_own_place(rows: Rows) -> None:
    clock, starts = rows.clock(), Starts()
    old, new, late = (rows.credential(name) for name in ("old", "new", "late"))
    rows.polls(3, old, clock, due=LATE)
    rows.polls(3, new, clock, due="interval '10 s'")
    rows.polls(3, late, clock, due=LATE, lane=1)
    assert rows.whose(rows.claim(starts=starts)) == {old: 3, new: 3, late: 3}
    rows.polls(3, old, clock)
    rows.polls(3, late, clock)
    rows.polls(3, late, clock, lane=1)
    assert rows.whose(rows.claim(starts=starts)) == {old: 3, late: 6}


def test_what_is_written_by_transactions_of_before_is_found_at_once(rows: Rows) -> None:
    credential, clock, starts = rows.credential("a"), rows.clock(), Starts()
    rows.polls(1, credential, clock)
    assert len(rows.claim(starts=starts)) == 1
    rows.polls(1, credential, clock, due=f"interval '{OVERLAP.total_seconds() - 1} s'")
    assert len(rows.claim(starts=starts)) == 1


def test_what_appears_in_the_past_is_found_when_the_hint_has_lapsed(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a clock that was set back by an hour."""
    credential, clock, starts = rows.credential("a"), rows.clock(), Starts()
    rows.polls(1, credential, clock)
    assert len(rows.claim(starts=starts)) == 1
    rows.polls(1, credential, clock, due=LATE)
    assert rows.claim(starts=starts) == []
    monkeypatch.setattr(ready, "LAPSE", 0.0)
    assert len(rows.claim(starts=starts)) == 1


def _lose_claim(rows: Rows, starts: Starts) -> None:
    with rows.database.transaction() as tx:
        claimed = rows.claimed(tx, starts=starts)
        assert claimed is not None
        assert claimed.total == 5
        raise LostError


def test_a_claim_that_is_rolled_back_hides_nothing(rows: Rows) -> None:
    credential, clock, starts = rows.credential("a"), rows.clock(), Starts()
    rows.polls(5, credential, clock, due=LATE)

    with pytest.raises(LostError):
        _lose_claim(rows, starts)
    assert len(rows.claim(starts=starts)) == 5
