"""Recoveries: where one stands, and which events it has still to look at. Kept on the receiver, so that anybody can carry it on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import text

from tracker.store.db import Transaction

LANE = 3
"""Sent one by one and behind everything else: that keeps the order, and is all the throttle that a receiver needs."""


@dataclass(frozen=True, slots=True)
class Replay:
    """A recovery under way, locked: it goes on behind the event `after`, up to the event `until`; the last delivery is due at `due`."""

    receiver_id: int
    project_id: UUID
    endpoint_id: UUID
    after: UUID
    until: UUID
    due: datetime


def begin(tx: Transaction, endpoint_id: UUID, after: UUID, until: UUID, now: datetime) -> None:
    """Start a recovery; one that runs already is carried on from the earlier of the two places."""
    tx.execute(
        text(
            "UPDATE receivers SET replay_after = least(replay_after, :after), replay_until = :until,"
            " replay_due = greatest(replay_due, :now) WHERE endpoint_id = :endpoint_id"
        ),
        {"endpoint_id": endpoint_id, "after": after, "until": until, "now": now},
    )


def under_way(tx: Transaction, endpoint_id: UUID | None = None) -> Replay | None:
    """A recovery that goes on, of this endpoint or of any; nobody else gets it before the commit."""
    where, wait = ("r.endpoint_id = :id", "") if endpoint_id else ("r.endpoint_id IS NOT NULL", "SKIP LOCKED")
    row = tx.execute(
        text(
            "SELECT r.id, r.project_id, r.endpoint_id, r.replay_after, r.replay_until, r.replay_due FROM receivers r"
            f" WHERE r.replay_after IS NOT NULL AND {where} ORDER BY r.id LIMIT 1 FOR NO KEY UPDATE {wait}"
        ),
        {"id": endpoint_id},
    ).first()
    return None if row is None else Replay(*row)


def unsent(tx: Transaction, replay: Replay, since: datetime, limit: int) -> list[Any]:
    """The next events since then that failed at this receiver or never had a delivery to it."""
    rows = tx.execute(
        text(
            """
            SELECT e.id, e.type, e.generation_id, e.at, g.provider, g.tags, d.id AS delivery_id
              FROM events e LEFT JOIN generations g ON g.id = e.generation_id
              LEFT JOIN deliveries d ON d.event_id = e.id AND d.receiver_id = :receiver_id
             WHERE e.project_id = :project_id AND e.id > :after AND e.id < :until AND e.at >= :since
               AND (d.state = 'failed' OR (d.id IS NULL AND e.type NOT IN ('generation.registered', 'ping')))
             ORDER BY e.id LIMIT :limit"""
        ),
        {
            "project_id": replay.project_id, "receiver_id": replay.receiver_id, "after": replay.after, "until": replay.until,
            "since": since, "limit": limit,
        },
    )  # fmt: skip
    return list(rows)


def send_again(tx: Transaction, again: Sequence[tuple[UUID, datetime]]) -> None:
    """Make failed deliveries due, each at its time, with their schedules anew."""
    if again:
        tx.execute(
            text(
                "UPDATE deliveries SET state = 'pending', due_at = :due_at, lane = :lane, tries = 0, ended_at = NULL"
                " WHERE id = :id AND state = 'failed'"
            ),
            [{"id": key, "due_at": due_at, "lane": LANE} for key, due_at in sorted(again)],
        )


def advance(tx: Transaction, replay: Replay, after: UUID, due: datetime) -> None:
    """So far it has come."""
    tx.execute(
        text("UPDATE receivers SET replay_after = :after, replay_due = :due WHERE id = :id"),
        {"id": replay.receiver_id, "after": after, "due": due},
    )


def end(tx: Transaction, replay: Replay) -> None:
    """It has come to its end."""
    tx.execute(
        text("UPDATE receivers SET replay_after = NULL, replay_until = NULL, replay_due = NULL WHERE id = :id"),
        {"id": replay.receiver_id},
    )


def stop(tx: Transaction, endpoint_id: UUID) -> None:
    """An endpoint that is disabled gets no more of a recovery: what it misses from now on needs a new one."""
    tx.execute(
        text(
            "UPDATE receivers SET replay_after = NULL, replay_until = NULL, replay_due = NULL, replay_snapshot = NULL"
            " WHERE endpoint_id = :id AND replay_after IS NOT NULL"
        ),
        {"id": endpoint_id},
    )
