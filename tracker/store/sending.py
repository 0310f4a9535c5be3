"""The hot path of webhooks: what may be sent now, what became of it, and how the receivers are.

Claimed per receiver, each with its lanes, cap in flight, rate limit and circuit, so that nobody waits for somebody else's slow endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from tracker.core.circuit import OPENS, Health
from tracker.store.db import Transaction, ahead, text
from tracker.store.rows import as_records, records

LEASE = timedelta(seconds=45)
"""Longer than an attempt may take. A lapsed lease is no attempt: the row is due again at once."""
BURST = 0.25
"""Seconds of an endpoint's rate limit that may be sent at once: short, since receivers count over a second."""

SETTINGS = {
    # These statements have one good plan whatever the values are, and making it anew each time takes longer than running it (measured).
    "plan_cache_mode": "force_generic_plan",
    # Bitmaps never learn which entries of an index are dead, and leases come and go thousands of times between two vacuums.
    "enable_bitmapscan": "off",
    # A plan is made while a table is small, and kept while it grows.
    "enable_seqscan": "off",
    # A claim or a record that a crash of the server takes back is an event that is sent again; nobody waits for the disk meanwhile.
    "synchronous_commit": "off",
}
"""What claims and records run under. They are right without it, and slower."""

# Claims lock receivers, so that caps and purses hold over all workers; who finds one locked looks again a moment later.
# The receivers with anything due are found by hopping through the index, however many there are that have nothing. Without the
# ORDER BY behind it the planner would read the whole table for one row.
_LOCK = """
WITH RECURSIVE clock AS MATERIALIZED (SELECT clock_timestamp() + CAST(:ahead AS interval) AS now),
waiting AS (
    (SELECT receiver_id FROM deliveries WHERE state = 'pending' ORDER BY receiver_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.receiver_id FROM deliveries d WHERE d.state = 'pending' AND d.receiver_id > w.receiver_id
             ORDER BY d.receiver_id LIMIT 1)
      FROM waiting w WHERE w.receiver_id IS NOT NULL),
due AS MATERIALIZED (
    SELECT w.receiver_id AS id FROM waiting w
     WHERE w.receiver_id IS NOT NULL AND NOT EXISTS (SELECT FROM switches WHERE name = 'webhooks')
       AND EXISTS (SELECT FROM (VALUES (0), (1), (2), (3)) AS l (lane) CROSS JOIN LATERAL (
           SELECT FROM deliveries d WHERE d.receiver_id = w.receiver_id AND d.lane = l.lane AND d.state = 'pending'
              AND d.due_at <= (SELECT now FROM clock) ORDER BY d.due_at LIMIT 1) d)),
locked AS MATERIALIZED (
    SELECT r.id FROM receivers r WHERE r.id = ANY (ARRAY(SELECT id FROM due)) FOR NO KEY UPDATE SKIP LOCKED)
SELECT due.id, locked.id IS NOT NULL AS ours, clock.now FROM clock, due LEFT JOIN locked ON locked.id = due.id"""

# A second statement, whose snapshot is taken under the locks: it sees what every earlier claim took.
# First attempts may use the whole cap, retries half of it, and what is replayed goes one by one, which keeps its order.
# A disabled endpoint, like a quiet one, gets only what is asked for by hand; upkeep ends what waits for it.
# Purses are filled by the clock as it is now, which is the nearest to when they are spent: the time of the first statement is older by
# the wait for the locks, and by the making of a plan.
_PURSE = """CASE WHEN n.rate_limit IS NULL THEN NULL ELSE least(greatest(n.rate_limit * :burst, 1),
               r.tokens + n.rate_limit * greatest(extract(epoch FROM clock.now - r.refilled_at), 0))::float8 END"""
_CLAIM = f"""
WITH clock AS MATERIALIZED (SELECT clock_timestamp() + CAST(:ahead AS interval) AS now),
lanes AS MATERIALIZED (
    SELECT r.id, {_PURSE} AS have,
           coalesce(greatest(r.quiet_until, r.asked_until) > :now, false) OR n.enabled IS FALSE OR r.given_up_at IS NOT NULL AS quiet,
           CASE WHEN r.failing >= :opens THEN 1 ELSE greatest(r.in_flight_cap / CAST(:crowd AS int), 1) END - f.flying AS room,
           greatest(r.in_flight_cap / 2, 1) - f.retried AS retry_room, 1 - f.replayed AS replay_room
      FROM clock CROSS JOIN receivers r LEFT JOIN endpoints n ON n.id = r.endpoint_id
           CROSS JOIN LATERAL (
           SELECT count(*) AS flying, count(*) FILTER (WHERE x.lane = 2) AS retried, count(*) FILTER (WHERE x.lane = 3) AS replayed
             FROM deliveries x WHERE x.receiver_id = r.id AND x.lease_until > :now) f
     WHERE r.id = ANY (:receivers)),
allowed AS MATERIALIZED (
    SELECT id, greatest(least(room, coalesce(floor(have), room)), 0)::bigint AS most, quiet, retry_room, replay_room FROM lanes),
candidates AS MATERIALIZED (
    SELECT d.* FROM allowed a CROSS JOIN LATERAL (
           SELECT e.* FROM (VALUES (0, a.most), (1, CASE WHEN a.quiet THEN 0 ELSE a.most END),
                                   (2, CASE WHEN a.quiet THEN 0 ELSE least(a.most, a.retry_room) END),
                                   (3, CASE WHEN a.quiet THEN 0 ELSE least(a.most, a.replay_room) END)) AS l (lane, room)
                  CROSS JOIN LATERAL (
                  SELECT d.id, d.receiver_id, d.lane, d.due_at FROM deliveries d
                   WHERE d.receiver_id = a.id AND d.lane = l.lane AND d.state = 'pending' AND d.due_at <= :now
                   ORDER BY d.due_at LIMIT greatest(l.room, 0) FOR UPDATE SKIP LOCKED) e
            ORDER BY e.lane, e.due_at LIMIT a.most) d),
-- Whose room is used up: of these more may be due, and what lands makes room for it.
filled AS MATERIALIZED (
    SELECT a.id FROM allowed a JOIN candidates c ON c.receiver_id = a.id
     GROUP BY a.id HAVING count(*) >= min(a.most) OR bool_or(c.lane >= 2) OR min(least(a.retry_room, a.replay_room)) <= 0),
chosen AS MATERIALIZED (
    SELECT c.id, c.receiver_id FROM (
           SELECT *, count(*) FILTER (WHERE lane >= 2) OVER (ORDER BY lane, due_at, id ROWS UNBOUNDED PRECEDING) AS late
             FROM candidates) c
     WHERE c.lane < 2 OR c.late <= :late ORDER BY c.lane, c.due_at LIMIT :n),
spent AS (
    UPDATE receivers r SET tokens = l.have - c.sent, refilled_at = clock.now
      FROM clock, lanes l JOIN (SELECT receiver_id, count(*) AS sent FROM chosen GROUP BY 1) c ON c.receiver_id = l.id
     WHERE r.id = l.id AND l.have IS NOT NULL),
claimed AS (
    UPDATE deliveries SET due_at = :lease_until, lease_until = :lease_until, fence = fence + 1
     WHERE id = ANY (ARRAY(SELECT id FROM chosen)) RETURNING *)
SELECT d.id, d.fence, d.project_id, d.event_id, d.receiver_id, d.endpoint_id, d.generation_id, coalesce(n.url, d.url) AS url, d.type,
       d.lane, d.attempts, d.tries, e.body, n.headers, n.ca, n.schedule,
       ARRAY(SELECT secret FROM (
                  SELECT s.* FROM signing_secrets s WHERE s.project_id = d.project_id AND s.endpoint_id = d.endpoint_id
                   UNION ALL
                  SELECT s.* FROM signing_secrets s WHERE s.project_id = d.project_id AND d.endpoint_id IS NULL AND s.endpoint_id IS NULL) s
              WHERE expires_at IS NULL OR expires_at > :now ORDER BY expires_at DESC NULLS FIRST) AS secrets,
       d.receiver_id IN (SELECT id FROM filled) AS filled
  FROM claimed d JOIN events e ON e.id = d.event_id JOIN lanes l ON l.id = d.receiver_id LEFT JOIN endpoints n ON n.id = d.endpoint_id
 ORDER BY d.lane, d.id"""

_HELD_BACK = f"""
SELECT min(wait) FILTER (WHERE wait > 0) AS wait,
       EXISTS (SELECT FROM deliveries x WHERE x.receiver_id = ANY (:receivers) AND x.lease_until > :now) AS crowded FROM (
    SELECT greatest(extract(epoch FROM greatest(r.quiet_until, r.asked_until) - clock.now),
                    (1 - {_PURSE}) / n.rate_limit) AS wait
      FROM (SELECT CAST(:now AS timestamptz) AS now) clock
           CROSS JOIN receivers r LEFT JOIN endpoints n ON n.id = r.endpoint_id WHERE r.id = ANY (:receivers)) w"""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One claimed delivery with all that sending it needs; `headers` and `secrets` are encrypted, the current secret first."""

    id: UUID
    fence: int
    project_id: UUID
    event_id: UUID
    receiver_id: int
    endpoint_id: UUID | None
    generation_id: UUID | None
    url: str
    """An endpoint whose address was mended gets what is still waiting at its new address."""
    type: str
    lane: int
    attempts: int
    tries: int
    body: bytes
    headers: bytes | None
    ca: str | None
    schedule: tuple[float, ...] | None
    secrets: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim brought, and after how many seconds another one may bring what was held back (None: when something happens).

    `more`: some is due for which there was no room, so that a landing is worth another claim. `at` is the server's time (None without
    anything due).
    """

    outgoing: list[Outgoing]
    again: float | None
    more: bool
    at: datetime | None


LOOK_AGAIN = 0.005
"""Seconds. Another worker's claim holds its locks for about as long."""
CROWDED = 0.1
"""Seconds until the next look where all room is taken: by another worker, it may be, who knows nothing of what came meanwhile."""


def claim(tx: Transaction, *, limit: int, late: int, crowd: int = 1) -> Claimed:
    """Claim up to `limit` due deliveries under a lease, of which up to `late` are no first attempts.

    Each receiver's cap in flight is divided by `crowd`, down to one.
    """
    due = tx.execute(text(_LOCK), {"ahead": ahead(tx)}).all()
    ours = [row.id for row in due if row.ours]
    if not ours:
        return Claimed([], LOOK_AGAIN if due else None, more=bool(due), at=None)
    now: datetime = due[0].now
    found = tx.execute(
        text(_CLAIM),
        {
            "now": now, "receivers": ours, "n": limit, "late": max(late, 0), "lease_until": now + LEASE, "opens": OPENS, "burst": BURST,
            "crowd": crowd, "ahead": ahead(tx),
        },
    ).all()  # fmt: skip
    more = any(row.filled for row in found) or len({row.receiver_id for row in found}) < len(ours)
    outgoing = [_outgoing(row) for row in found]
    if len(ours) < len(due):
        return Claimed(outgoing, LOOK_AGAIN, more, now)
    if outgoing:
        return Claimed(outgoing, None, more, now)
    held = tx.execute(text(_HELD_BACK), {"now": now, "receivers": ours, "burst": BURST}).one()
    waits = [float(wait) for wait in (held.wait, CROWDED if held.crowded else None) if wait is not None]
    return Claimed([], min(waits, default=None), more=held.crowded, at=now)


def _outgoing(row: Any) -> Outgoing:
    fields = {name: getattr(row, name) for name in Outgoing.__dataclass_fields__}
    fields["schedule"] = None if row.schedule is None else tuple(row.schedule)
    fields["secrets"] = tuple(row.secrets)
    return Outgoing(**fields)


@dataclass(frozen=True, slots=True)
class Attempted:
    """How one attempt ended that began `ago` seconds ago, and what follows from it: the next one after `pause` seconds, or none."""

    delivery_id: UUID
    receiver_id: int
    url: str
    fence: int
    number: int
    ago: float
    duration_ms: int
    status_code: int | None
    error_class: str | None
    response: str
    worker: str
    state: str
    lane: int
    tries: int
    pause: float | None


_TYPES = {
    "delivery_id": "uuid", "url": "text", "fence": "int", "number": "int", "ago": "float8", "duration_ms": "int", "status_code": "int",
    "error_class": "text", "response": "text", "worker": "text", "state": "text", "lane": "int", "tries": "int",
    "pause": "float8",
}  # fmt: skip
_LOGGED = "delivery_id, number, at, duration_ms, status_code, error_class, response, worker"
_RECORD = f"""
WITH a AS MATERIALIZED (
    SELECT r.*, now - make_interval(secs => ago) AS at, now + make_interval(secs => pause) AS due_at,
           CASE WHEN pause IS NULL THEN now END AS ended_at
      FROM {records(_TYPES)}, (SELECT clock_timestamp() + CAST(:ahead AS interval) AS now OFFSET 0) clock),
held AS MATERIALIZED (SELECT id FROM deliveries WHERE id = ANY (:ids) ORDER BY id FOR UPDATE),
kept AS (
    UPDATE deliveries d
       SET state = a.state, attempts = a.number, tries = a.tries, lane = a.lane, due_at = a.due_at, lease_until = NULL,
           ended_at = a.ended_at, url = a.url
      FROM a WHERE d.id = ANY (ARRAY(SELECT id FROM held)) AND d.id = a.delivery_id AND d.fence = a.fence AND d.state = 'pending'
       AND d.lease_until IS NOT NULL
    RETURNING d.id),
logged AS (INSERT INTO attempts ({_LOGGED}) SELECT {_LOGGED} FROM a JOIN kept ON kept.id = a.delivery_id)
SELECT id FROM receivers WHERE id = ANY (:receivers) AND (failing > 0 OR failing_since IS NOT NULL)"""


def record(tx: Transaction, attempted: Sequence[Attempted]) -> set[int]:
    """Store attempts whose claim still holds, in one statement; returns which of the receivers were not known to be healthy."""
    if not attempted:
        return set()
    rows = {
        "rows": as_records(attempted, _TYPES),
        "ids": [a.delivery_id for a in attempted],
        "receivers": list({a.receiver_id for a in attempted}),
        "ahead": ahead(tx),
    }
    return set(tx.execute(text(_RECORD), rows).scalars())


_HEALTH = ", ".join(Health.__dataclass_fields__)


def health(tx: Transaction, receiver_ids: Iterable[int]) -> dict[int, Health]:
    """How these receivers are, locked until the commit."""
    rows = tx.execute(
        text(f"SELECT id, {_HEALTH} FROM receivers WHERE id = ANY (:ids) ORDER BY id FOR NO KEY UPDATE"),
        {"ids": sorted(set(receiver_ids))},
    )
    return {key: Health(*fields) for key, *fields in rows}


def write_health(tx: Transaction, changed: dict[int, Health]) -> None:
    """Store how receivers are now."""
    changes = ", ".join(f"{name} = :{name}" for name in Health.__dataclass_fields__)
    for key in sorted(changed):
        tx.execute(text(f"UPDATE receivers SET {changes} WHERE id = :id"), {"id": key, **asdict(changed[key])})


def give_up(tx: Transaction, receiver_id: int, now: datetime) -> None:
    """Leave it to upkeep to end what waits for this receiver; until that is done it gets nothing new."""
    tx.execute(text("UPDATE receivers SET given_up_at = :now WHERE id = :id"), {"id": receiver_id, "now": now})
