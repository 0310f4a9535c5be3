"""Learned clocks: evidence is appended inside the record transaction without a lock, and folded in by upkeep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tracker.core.schedule import BUCKETS, Clock
from tracker.store.db import Transaction, text


@dataclass(frozen=True, slots=True)
class Learned:
    """One clock as it was last folded. `phase` is `waiting` or `processing`."""

    id: int
    provider: str
    subject: str
    phase: str
    clock: Clock
    gaps: list[float]
    price: float
    tasks: float


def _learned(row: Any) -> Learned:
    clock = Clock(list(row.events), list(row.exposure))
    return Learned(row.id, row.provider, row.subject, row.phase, clock, list(row.gaps), row.price, row.tasks)


def everything(tx: Transaction) -> list[Learned]:
    """All clocks."""
    return [_learned(row) for row in tx.execute(text("SELECT * FROM clocks ORDER BY provider, subject, phase"))]


def ensure(
    tx: Transaction, subjects: Iterable[tuple[str, str]], phase: str, *, price: float
) -> dict[tuple[str, str], Learned]:
    """The clocks of these (provider, subject) in one phase; a new one knows nothing yet.

    New ones are inserted in one order everywhere, so that two who make the same never wait for each other crosswise.
    """
    wanted = sorted(set(subjects))
    found = _of_subjects(tx, wanted, phase)
    missing = [key for key in wanted if key not in found]
    if missing:
        tx.execute(
            text(
                "INSERT INTO clocks (provider, subject, phase, events, exposure, gaps, price)"
                " SELECT provider, subject, :phase, :zeros, :zeros, :gaps, :price"
                " FROM unnest(CAST(:providers AS text[]), CAST(:subjects AS text[])) AS k (provider, subject)"
                " ON CONFLICT DO NOTHING"
            ),
            {
                "providers": [provider for provider, _ in missing], "subjects": [subject for _, subject in missing],
                "phase": phase, "zeros": [0.0] * BUCKETS, "gaps": Clock().gaps(price), "price": price,
            },
        )  # fmt: skip
        found |= _of_subjects(tx, missing, phase)
    return found


def _of_subjects(tx: Transaction, wanted: Sequence[tuple[str, str]], phase: str) -> dict[tuple[str, str], Learned]:
    rows = tx.execute(
        text(
            "SELECT c.* FROM clocks c JOIN unnest(CAST(:providers AS text[]), CAST(:subjects AS text[])) AS k (provider, subject)"
            " ON c.provider = k.provider AND c.subject = k.subject WHERE c.phase = :phase"
        ),
        {"providers": [key[0] for key in wanted], "subjects": [key[1] for key in wanted], "phase": phase},
    )
    return {(row.provider, row.subject): _learned(row) for row in rows}


@dataclass(frozen=True, slots=True)
class Delta:
    """What a batch of polls showed of one clock: per bucket that was touched, passages, ends and seconds watched."""

    clock_id: int
    buckets: list[int]
    passages: list[float]
    events: list[float]
    exposure: list[float]


def append(tx: Transaction, deltas: Sequence[Delta]) -> None:
    """Keep evidence until it is folded. Never lock a clock's row here: it would serialise all workers of a model."""
    if deltas:
        tx.execute(
            text(
                "INSERT INTO clock_deltas (clock_id, buckets, passages, events, exposure)"
                " VALUES (:clock_id, :buckets, :passages, :events, :exposure)"
            ),
            [{name: getattr(delta, name) for name in Delta.__dataclass_fields__} for delta in deltas],
        )


def fold(tx: Transaction, *, price: float, now: datetime) -> int:
    """Merge all evidence into the clocks, and compute their gaps anew; returns how many clocks changed.

    The rows are deleted as they are read, so that two folders never count one twice.
    """
    gathered: dict[int, list[list[float]]] = {}
    for row in tx.execute(text("DELETE FROM clock_deltas RETURNING clock_id, buckets, passages, events, exposure")):
        sums = gathered.setdefault(row.clock_id, [[0.0] * BUCKETS for _ in range(3)])
        for bucket, *shown in zip(row.buckets, row.passages, row.events, row.exposure, strict=True):
            for total, value in zip(sums, shown, strict=True):
                total[bucket] += value
    rows = tx.execute(
        text("SELECT * FROM clocks WHERE id = ANY (:ids) ORDER BY id FOR NO KEY UPDATE"), {"ids": list(gathered)}
    )
    for learned in [_learned(row) for row in rows]:
        passages, events, exposure = gathered[learned.id]
        learned.clock.merge(passages, events, exposure)
        tx.execute(
            text(
                "UPDATE clocks SET events = :events, exposure = :exposure, gaps = :gaps, price = :price, tasks = tasks + :tasks,"
                " folded_at = :now WHERE id = :id"
            ),
            {
                "id": learned.id, "events": learned.clock.events, "exposure": learned.clock.exposure,
                "gaps": learned.clock.gaps(price), "price": price, "tasks": sum(events), "now": now,
            },
        )  # fmt: skip
    return len(gathered)
