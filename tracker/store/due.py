"""The schedule: which generations are asked about next. Claiming a poll moves it to its next time, in one statement.

So an unchanged answer needs no second write, and a dead worker costs one late poll. Never one global ORDER BY due_at: it would fill
with rows of a paused or throttled credential. Each credential brings its own allowance (tokens, room in flight), spent in the claim.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import text

from tracker.core.generation import State
from tracker.core.lifecycle import Known
from tracker.core.pausing import FAILING
from tracker.core.schedule import BUCKETS, EDGES
from tracker.store.db import Transaction
from tracker.store.rows import outputs_from

SHORTEST_CLAIM = 5.0
"""Seconds that a claim keeps others away at least. A poll still in flight by then may be asked twice, harmlessly (compare-and-set)."""
BURST = 0.4
"""Seconds of a credential's rate that may be saved up: in any 10 s at most 4 % more than the rate is asked."""
UNREAD_LEASE = timedelta(seconds=15)
"""A batch message that nobody took within this is void: it was lost, or its polls are due again."""
MOST_LAG = 22.0
"""Seconds of lag that count: with them a gap is four times as long. What overload is left shows as lag, in the order of due times."""
MOST_COUNTED = 500
"""Due polls that are counted behind a claim, which costs 1 us each; more of them are taken for an overload at any rate."""
FLIGHT_LEASE = timedelta(seconds=45)
"""After this a batch that was taken and never reported back no longer counts against its credentials' concurrency."""

_AGE = "extract(epoch FROM CAST(:now AS timestamptz) - p.clock_from)::float8"
_POSITION = (
    f"CASE WHEN {_AGE} < {EDGES[1]} THEN greatest({_AGE}, 0) / {EDGES[1]}"
    f" ELSE least(1 + {BUCKETS - 1} * ln({_AGE} / {EDGES[1]}) / ln(1800.0::float8), {BUCKETS}) END"
)
# The learned gap, interpolated between the age edges and not bounded yet. How a gap answers to a price of its own depends on the law
# ahead; the square root is right for a constant hazard, and where it is far off the record corrects it.
_GAP = f"""(SELECT (c.gaps[floor(x.at)::int + 1] * (1 - (x.at - floor(x.at)))
                   + c.gaps[least(floor(x.at)::int + 2, {BUCKETS + 1})] * (x.at - floor(x.at)))
                  * CASE WHEN p.price IS NULL THEN 1 ELSE sqrt(p.price / c.price) END
             FROM clocks c, LATERAL (SELECT {_POSITION} AS at) x WHERE c.id = p.clock_id)"""
_NEXT = f"""CAST(:now AS timestamptz) + make_interval(secs => CASE WHEN p.lane = 1 THEN 600 ELSE
    greatest({SHORTEST_CLAIM}, least(least({_GAP} * (0.9 + 0.2 * random()), coalesce(p.longest, :longest) * (0.9 + 0.1 * random()))
                                     * coalesce((SELECT s.stretch FROM strained s WHERE s.id = p.credential_id), 1),
                                     extract(epoch FROM p.timeout_at - CAST(:now AS timestamptz))::float8)) END)"""

# Under overload the price of a request rises with the lag, as price x exp(lag / 8 s): a gap answers with its square root. But only where
# the budget binds, and the lag counts no further than it takes to let through what is due: a pause or a stand-still leaves a lag, too.
CLAIM = f"""
WITH purse AS MATERIALIZED (
    SELECT c.id, c.state = 'paused' AS probing,
           least(greatest(c.requests_per_second * {BURST}, 1),
                 c.tokens + c.requests_per_second * extract(epoch FROM CAST(:now AS timestamptz) - c.refilled_at))::float8 AS have,
           c.concurrency
           - coalesce((SELECT sum(f.asks) FROM flights f WHERE f.credential_id = c.id AND f.until > :now), 0) AS room,
           c.batch_size AS size, c.failing, c.requests_per_second AS rate,
           greatest(extract(epoch FROM CAST(:now AS timestamptz) - (
               SELECT min(p.due_at) FROM polls p WHERE p.credential_id = c.id AND p.lane = 0))::float8, 0) AS lag
      FROM credentials c
     WHERE (c.state = 'active' OR c.probe_at <= :now) AND (c.blocked_until IS NULL OR c.blocked_until <= :now)
       AND least((SELECT min(p.due_at) FROM polls p WHERE p.credential_id = c.id AND p.lane = 0),
                 (SELECT min(p.due_at) FROM polls p WHERE p.credential_id = c.id AND p.lane = 1)) <= :now
     ORDER BY c.refilled_at
       FOR NO KEY UPDATE OF c SKIP LOCKED),
able AS MATERIALIZED (
    SELECT id, have, probing, size, rate, lag, probing OR failing >= :failing AS careful, greatest(:n / count(*) OVER (), 5) AS share,
           greatest(CASE WHEN probing OR failing >= :failing THEN least(1, room) ELSE least(floor(have), room) * size END, 0) AS could
      FROM purse),
allowed AS MATERIALIZED (
    SELECT id, have, probing, size, rate, lag, careful, could,
           -- What accounts with little allowance leave of their share goes to those with more.
           least(could, greatest(share, (:n - coalesce(sum(could) FILTER (WHERE could < share) OVER (), 0))
                                        / greatest(count(*) FILTER (WHERE could >= share) OVER (), 1))) AS asks
      FROM able),
due AS MATERIALIZED (
    SELECT d.generation_id, a.id AS credential_id
      FROM allowed a CROSS JOIN LATERAL (
           SELECT e.generation_id FROM (VALUES (0), (1)) AS l (lane) CROSS JOIN LATERAL (
                  SELECT p.generation_id FROM polls p
                   WHERE p.credential_id = a.id AND p.lane = l.lane AND p.due_at <= :now
                   ORDER BY p.due_at LIMIT greatest(a.asks, 0)::bigint FOR UPDATE SKIP LOCKED) e
            LIMIT greatest(a.asks, 0)::bigint) d
     LIMIT :n),
strained AS MATERIALIZED (
    SELECT a.id, exp(least(a.lag, CASE WHEN j.due < n.asks + {MOST_COUNTED} THEN (j.due - n.asks) / (a.rate * a.size) END, {MOST_LAG}) / 16)
                 AS stretch
      FROM allowed a JOIN (SELECT credential_id, count(*) AS asks FROM due GROUP BY 1) n ON n.credential_id = a.id
           CROSS JOIN LATERAL (
           SELECT count(*) AS due FROM (
                  SELECT FROM polls p WHERE p.credential_id = a.id AND p.lane = 0 AND p.due_at <= :now
                   ORDER BY p.due_at LIMIT n.asks + {MOST_COUNTED}) w) j
     WHERE n.asks >= a.could AND NOT a.careful),
spent AS (
    UPDATE credentials c
       SET tokens = a.have - ceil(n.asks::float8 / a.size), refilled_at = :now,
           probes = c.probes + a.probing::int,
           probe_at = CASE WHEN a.probing
                           THEN CAST(:now AS timestamptz) + make_interval(secs => (:probe_waits)[least(c.probes + 2, :probe_steps)])
                           ELSE c.probe_at END
      FROM (SELECT credential_id, count(*) AS asks FROM due GROUP BY 1) n JOIN allowed a ON a.id = n.credential_id
     WHERE c.id = n.credential_id),
flown AS (
    INSERT INTO flights (batch_id, credential_id, asks, until)
    SELECT :batch, d.credential_id, ceil(count(*)::float8 / min(a.size)), :flight_until
      FROM due d JOIN allowed a ON a.id = d.credential_id GROUP BY d.credential_id)
UPDATE polls p
   SET due_at = {_NEXT}, asked_at = :now, fence = p.fence + 1,
       watched_at = CASE WHEN p.failures = 0 AND p.asked_at IS NOT NULL THEN p.asked_at ELSE p.watched_at END
 WHERE p.generation_id = ANY (ARRAY(SELECT generation_id FROM due))
RETURNING CAST(p.generation_id AS text), p.fence, p.clock_id"""
# `= ANY(ARRAY(...))` and not a join: the planner cannot know the limits above, expects many rows and scans the whole table.
# `min` and not EXISTS: the planner may hash an EXISTS, which reads the late lane of all accounts. Who was served last is last in turn.


class Claim(NamedTuple):
    """One claimed poll: the fence tells whether this claim is still the latest. The id is text, as the message carries it."""

    generation_id: str
    fence: int
    clock_id: int


def claim(
    tx: Transaction, *, batch: UUID, now: datetime, limit: int, longest: float, probe_waits: Sequence[float]
) -> list[Claim]:
    """Claim up to `limit` due polls within every credential's budget, and move each to its next time."""
    rows = tx.execute(
        text(CLAIM),
        {
            "now": now,
            "n": limit,
            "batch": batch,
            "longest": longest,
            "flight_until": now + UNREAD_LEASE,
            "probe_waits": list(probe_waits),
            "probe_steps": len(probe_waits),
            "failing": FAILING,
        },
    )
    return [Claim(*row) for row in rows.all()]


def paid(tx: Transaction, batch: UUID) -> dict[int, int]:
    """How many requests a batch's claim paid for, by credential."""
    rows = tx.execute(text("SELECT credential_id, asks FROM flights WHERE batch_id = :batch"), {"batch": batch})
    return {row.credential_id: row.asks for row in rows}


def release(tx: Transaction, claims: Sequence[tuple[UUID, int]], now: datetime) -> None:
    """Make claimed polls due again that were not asked about; the look that did not take place is forgotten."""
    if claims:
        tx.execute(
            text(
                "UPDATE polls p SET due_at = :now, asked_at = p.watched_at"
                " FROM unnest(CAST(:ids AS uuid[]), CAST(:fences AS int[])) AS c (id, fence)"
                " WHERE p.generation_id = c.id AND p.fence = c.fence"
            ),
            {"now": now, "ids": [key for key, _ in claims], "fences": [fence for _, fence in claims]},
        )


def land(tx: Transaction, batch: UUID) -> None:
    """The batch is answered: its requests are no longer in flight."""
    tx.execute(text("DELETE FROM flights WHERE batch_id = :batch"), {"batch": batch})


def partly_land(tx: Transaction, batch: UUID, left: Mapping[int, int]) -> None:
    """A part of the batch is answered: of each credential no more than these requests are in flight."""
    tx.execute(
        text(
            "WITH l AS (SELECT * FROM unnest(CAST(:ids AS int[]), CAST(:asks AS int[])) AS l (id, asks)),"
            " kept AS (UPDATE flights f SET asks = least(f.asks, l.asks) FROM l WHERE f.batch_id = :batch AND f.credential_id = l.id)"
            " DELETE FROM flights f WHERE f.batch_id = :batch AND f.credential_id <> ALL (:ids)"
        ),
        {"batch": batch, "ids": list(left), "asks": list(left.values())},
    )


def launch(tx: Transaction, batch: UUID, now: datetime) -> bool:
    """A worker has taken the batch; False when its message is late, or came a second time."""
    taken = tx.execute(
        text("UPDATE flights SET until = :until WHERE batch_id = :batch AND until > :now AND until <= :unread"),
        {"batch": batch, "now": now, "until": now + FLIGHT_LEASE, "unread": now + UNREAD_LEASE},
    )
    return taken.rowcount > 0


def unread(tx: Transaction, now: datetime) -> int:
    """How many batches wait to be taken; lapsed ones are swept. Those under way do not count: their worker may be dead."""
    tx.execute(text("DELETE FROM flights WHERE until <= :now"), {"now": now})
    waiting = text("SELECT count(DISTINCT batch_id) FROM flights WHERE until <= :unread")
    return int(tx.execute(waiting, {"unread": now + UNREAD_LEASE}).scalar_one())


class Asked(NamedTuple):
    """A claimed generation with all that asking about it needs."""

    id: UUID
    provider: str
    credential_id: int
    task_id: str
    kind: str | None
    fence: int
    clock_id: int
    clock_from: datetime
    watched_at: datetime | None
    asked_at: datetime
    due_at: datetime
    price: float | None
    known: Known


ASKED = """
    SELECT g.id, g.provider, g.credential_id, g.task_id, g.kind, g.state, g.provider_status, g.outputs,
           g.registered_at, g.give_up_at, p.timeout_at, p.fence, p.failures, p.problem_code, p.problem_run,
           p.answered_late, p.clock_id, p.clock_from, p.watched_at, p.asked_at, p.due_at, p.progress, p.price, p.longest
      FROM unnest(CAST(%s AS uuid[]), CAST(%s AS int[])) AS a (id, fence)
      JOIN polls p ON p.generation_id = a.id AND p.fence = a.fence
      JOIN generations g ON g.id = a.id"""


def asked(tx: Transaction, claims: Sequence[tuple[str, int]], longest: float) -> list[Asked]:
    """The claimed generations whose claim still holds; others are left out."""
    # In PostgreSQL's binary form: seven times a row, a timestamp would be written out there and read again here.
    driver: Any = tx.connection.driver_connection
    with driver.cursor(binary=True) as cursor:
        cursor.execute(ASKED, ([key for key, _ in claims], [fence for _, fence in claims]))
        # Fetched in one go: one by one, the fetching costs more than the query.
        return [_asked(row, longest) for row in cursor.fetchall()]


_STATES = {state.value: state for state in State}
"""A look-up: an enumeration's own call costs ten times as much."""


def _asked(row: Any, longest: float) -> Asked:
    # By position: thousands of these are made a second, and names cost more than all the rest.
    (
        key, provider, credential_id, task_id, kind, state, provider_status, outputs, registered_at, give_up_at,
        timeout_at, fence, failures, problem_code, problem_run, answered_late, clock_id, clock_from, watched_at, asked_at,
        due_at, progress, price, own_longest,
    ) = row  # fmt: skip
    known = Known(
        _STATES[state], registered_at, timeout_at, give_up_at, provider_status, progress,
        outputs_from(outputs) if outputs else (), failures, problem_code, problem_run, answered_late, own_longest or longest,
    )  # fmt: skip
    return Asked(
        key, provider, credential_id, task_id, kind, fence, clock_id, clock_from, watched_at, asked_at, due_at, price,
        known,
    )  # fmt: skip


def lag(tx: Transaction, now: datetime) -> float:
    """Seconds by which the latest-running due poll of any active credential is late; 0 when nothing is."""
    late = tx.execute(
        text(
            """
            SELECT extract(epoch FROM :now - min(d.due_at)) FROM credentials c CROSS JOIN LATERAL (
                SELECT due_at FROM polls p WHERE p.credential_id = c.id AND p.lane = 0 ORDER BY due_at LIMIT 1) d
             WHERE c.state = 'active' AND (c.blocked_until IS NULL OR c.blocked_until <= :now)"""
        ),
        {"now": now},
    ).scalar_one()
    return max(0.0, float(late or 0.0))
