"""Recoveries: where one stands, and which events it has still to look at. Kept on the receiver, so that anybody can carry it on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from tracker.core import ids
from tracker.store.db import Transaction, text

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
    snapshot: str | None
    settled: bool
    """Whether all that was being written when it began has come to its end."""


def begin(tx: Transaction, endpoint_id: UUID, after: UUID, until: UUID, now: datetime) -> None:
    """Start a recovery; one that runs already is carried on from the earlier of the two places."""
    tx.execute(
        text(
            "UPDATE receivers SET replay_after = least(replay_after, :after), replay_until = :until,"
            " replay_due = greatest(replay_due, :now), replay_snapshot = coalesce(replay_snapshot, pg_current_snapshot()::text)"
            " WHERE endpoint_id = :endpoint_id"
        ),
        {"endpoint_id": endpoint_id, "after": after, "until": until, "now": now},
    )


def some_under_way(tx: Transaction, limit: int) -> list[tuple[UUID, UUID]]:
    """Projects and endpoints whose recovery goes on; others each time, so that none waits for another."""
    rows = tx.execute(
        text(
            "SELECT project_id, endpoint_id FROM receivers WHERE replay_after IS NOT NULL AND endpoint_id IS NOT NULL"
            " ORDER BY random() LIMIT :limit"
        ),
        {"limit": limit},
    )
    return [(row.project_id, row.endpoint_id) for row in rows]


def under_way(tx: Transaction, endpoint_id: UUID) -> Replay | None:
    """The recovery of an endpoint, if it goes on; nobody else gets it before the commit."""
    row = tx.execute(
        text(
            """
            SELECT r.id, r.project_id, r.endpoint_id, r.replay_after, r.replay_until, r.replay_due, r.replay_snapshot,
                   coalesce(pg_snapshot_xmax(r.replay_snapshot::pg_snapshot) <= pg_snapshot_xmin(pg_current_snapshot()), true)
              FROM receivers r WHERE r.replay_after IS NOT NULL AND r.endpoint_id = :id FOR NO KEY UPDATE"""
        ),
        {"id": endpoint_id},
    ).first()
    return None if row is None else Replay(*row)


# Nobody is told of a registration, of another endpoint's ping, or of his own end.
_MISSED = """d.id IS NULL AND e.type NOT IN ('generation.registered', 'ping')
               AND CASE WHEN e.type = 'endpoint.disabled'
                        THEN convert_from(e.body, 'UTF8')::jsonb #>> '{data,endpoint_id}' <> :own ELSE true END"""
_LOOK = """
            SELECT e.id, e.type, e.generation_id, e.at, g.provider, g.tags, d.id AS delivery_id
              FROM events e LEFT JOIN generations g ON g.id = e.generation_id
              LEFT JOIN deliveries d ON d.event_id = e.id AND d.receiver_id = :receiver_id"""


def unsent(tx: Transaction, replay: Replay, since: datetime, limit: int, looked: int) -> tuple[list[Any], UUID | None]:
    """The next events since then that failed at this receiver or never had a delivery to it; and where to go on, None at the end.

    Looks at `looked` events at most, whoever they are for: of millions that were delivered none need be found.
    """
    bound: UUID | None = tx.execute(
        text("SELECT id FROM events WHERE id > :after AND id < :until ORDER BY id OFFSET :looked - 1 LIMIT 1"),
        {"after": replay.after, "until": replay.until, "looked": looked},
    ).scalar_one_or_none()
    rows = tx.execute(
        text(
            f"""{_LOOK}
             WHERE e.project_id = :project_id AND e.id > :after AND e.id < :until AND e.at >= :since
               AND e.id <= coalesce(CAST(:bound AS uuid), :until)
               AND (d.state = 'failed' OR ({_MISSED}))
             ORDER BY e.id LIMIT :limit"""
        ),
        {
            "project_id": replay.project_id, "receiver_id": replay.receiver_id, "after": replay.after, "until": replay.until,
            "bound": bound, "own": ids.public("ep", replay.endpoint_id), "since": since, "limit": limit,
        },
    ).all()  # fmt: skip
    return list(rows), rows[-1].id if len(rows) == limit else bound


def late(tx: Transaction, replay: Replay) -> list[Any]:
    """The missed events that were being written when the recovery began: they may have appeared behind its place."""
    if replay.snapshot is None:
        return []
    rows = tx.execute(
        text(
            f"""{_LOOK}
             WHERE e.project_id = :project_id AND {_MISSED}
               AND e.xid >= (pg_snapshot_xmin(CAST(:snapshot AS pg_snapshot))::text)::bigint
               AND e.xid < (pg_snapshot_xmax(CAST(:snapshot AS pg_snapshot))::text)::bigint
               AND NOT pg_visible_in_snapshot(e.xid::text::xid8, CAST(:snapshot AS pg_snapshot))"""
        ),
        {
            "project_id": replay.project_id, "receiver_id": replay.receiver_id, "own": ids.public("ep", replay.endpoint_id),
            "snapshot": replay.snapshot,
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


def end(tx: Transaction, endpoint_id: UUID) -> None:
    """A recovery has come to its end, or its endpoint is disabled: what that misses from now on needs a new one."""
    tx.execute(
        text(
            "UPDATE receivers SET replay_after = NULL, replay_until = NULL, replay_due = NULL, replay_snapshot = NULL"
            " WHERE endpoint_id = :id AND replay_after IS NOT NULL"
        ),
        {"id": endpoint_id},
    )
