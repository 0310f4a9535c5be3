"""The schedule: which generations are asked about next. Claiming a poll moves it to its next time, in one statement.

So an unchanged answer needs no second write, and a dead worker costs one late poll. Never one global ORDER BY due_at: it would fill
with rows of a paused or throttled credential. Each credential brings its own allowance (tokens, room in flight), spent in the claim.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

from tracker.core.pausing import FAILING
from tracker.core.schedule import BUCKETS, EDGES
from tracker.store import schedule
from tracker.store.batches import Bundle
from tracker.store.db import Transaction, text
from tracker.store.flights import FLIGHT_LEASE, HAVE, UNREAD_LEASE
from tracker.store.ready import Starts, ready

SHORTEST_CLAIM = 5.0
"""Seconds that a claim keeps others away at least. A poll still in flight by then may be asked twice, harmlessly (compare-and-set)."""
MOST_LAG = 22.0
"""Seconds of lag that count: with them a gap is four times as long. What overload is left shows as lag, in the order of due times."""
MOST_COUNTED = 500
"""Due polls that are counted behind a claim, which costs 1 us each; more of them are taken for an overload at any rate."""
TOGETHER = 4
"""Polls of an account that is asked about many in one request, of which a claim takes as many as of one poll of the others: they keep the
worker a quarter as busy, or less. More in each claim make a poll cheaper; beyond this, little comes of it."""
SLOW = timedelta(seconds=1)
"""A batch that is open for longer keeps somebody busy who could see others through."""

SETTINGS = {
    # Bitmaps never learn which entries of an index are dead, and flights come and go thousands of times between two vacuums.
    "enable_bitmapscan": "off",
    # Read from end to end, even a small table holds all of these.
    "enable_seqscan": "off",
    # A claim that a crash of the server takes back is made again, and nobody waits for the disk meanwhile. What it spent is lost no more
    # than its batch: the commit of who takes that from the broker is waited for, and with it all those before.
    "synchronous_commit": "off",
}
"""What claims run under. They are right without it, and slower."""

_AGE = "date_part('epoch', CAST(:now AS timestamptz) - p.clock_from)"
_POSITION = (
    f"CASE WHEN {_AGE} < {EDGES[1]} THEN greatest({_AGE}, 0) / {EDGES[1]}"
    f" ELSE least(1 + {BUCKETS - 1} * ln({_AGE} / {EDGES[1]}) / ln(1800.0::float8), {BUCKETS}) END"
)
# The learned gap, interpolated between the age edges and not bounded yet. How a gap answers to a price of its own depends on the law
# ahead; the square root is right for a constant hazard, and where it is far off the record corrects it.
_GAP = f"""(SELECT (c.gaps[floor(x.at)::int + 1] * (1 - (x.at - floor(x.at)))
                   + c.gaps[least(floor(x.at)::int + 2, {BUCKETS + 1})] * (x.at - floor(x.at)))
                  * CASE WHEN p.price IS NULL THEN 1 ELSE sqrt(p.price / c.price) END
             FROM clocks c, LATERAL (SELECT {_POSITION} AS at OFFSET 0) x WHERE c.id = p.clock_id)"""
_NEXT = f"""CAST(:now AS timestamptz) + make_interval(secs => CASE WHEN p.lane = 1 THEN 600 ELSE
    greatest({SHORTEST_CLAIM}, least(least({_GAP} * (0.9 + 0.2 * random()), coalesce(p.longest, :longest) * (0.9 + 0.1 * random()))
                                     * coalesce((SELECT s.stretch FROM strained s WHERE s.id = p.credential_id), 1),
                                     date_part('epoch', p.timeout_at - CAST(:now AS timestamptz)))) END)"""

# Under overload the price of a request rises with the lag, as price x exp(lag / 8 s): a gap answers with its square root. But only where
# the budget binds, and the lag counts no further than it takes to let through what is due: a pause or a stand-still leaves a lag, too.
CLAIM = text(f"""
WITH slow AS MATERIALIZED (
    SELECT count(DISTINCT batch_id) AS batches FROM flights WHERE taken AND until > :now AND until < :slow),
purse AS MATERIALIZED (
    SELECT c.id, c.state = 'paused' AS probing, {HAVE} AS have, c.concurrency - f.asks AS room, f.asks AS flying,
           (f.slow OR f.asks > 0 AND c.failing > 0) AND (SELECT batches FROM slow) >= :most_slow AS hanging,
           c.batch_size AS size, c.failing, c.requests_per_second AS rate, h.since, h.late_since,
           greatest(extract(epoch FROM CAST(:now AS timestamptz) - h.since)::float8, 0) AS lag
      FROM unnest(CAST(:held AS int[]), CAST(:since AS timestamptz[]), CAST(:late_since AS timestamptz[])) AS h (id, since, late_since)
           JOIN credentials c ON c.id = h.id CROSS JOIN LATERAL (
           SELECT coalesce(sum(f.asks), 0) AS asks, coalesce(bool_or(f.taken AND f.until < :slow), false) AS slow
             FROM flights f WHERE f.credential_id = c.id AND f.until > :now) f
     ORDER BY c.refilled_at),
able AS MATERIALIZED (
    SELECT id, have, probing, size, rate, since, late_since, lag, hanging OR probing OR failing >= :failing AS careful,
           least(size, {TOGETHER}) AS weight, greatest(:n / count(*) OVER (), 5) * least(size, {TOGETHER}) AS share,
           greatest(CASE WHEN hanging THEN 0
                         WHEN probing THEN least(1, room)
                         -- The circuit is half open: nobody is asked before it is known what became of the last question.
                         WHEN failing >= :failing THEN (flying = 0)::int
                         ELSE least(floor(have), room) * size END, 0) AS could
      FROM purse),
allowed AS MATERIALIZED (
    SELECT id, have, probing, size, rate, since, late_since, lag, careful, could, weight,
           -- What accounts with little allowance leave of their share goes to those with more.
           -- Whole: a sum of fractions would not tell whether a claim is full.
           least(could, ceil(greatest(share, weight * (:n - coalesce(sum(could / weight) FILTER (WHERE could < share) OVER (), 0))
                                        / greatest(count(*) FILTER (WHERE could >= share) OVER (), 1)))) AS asks
      FROM able),
most AS MATERIALIZED (
    SELECT ceil(:n * sum(asks) / greatest(sum(asks / weight), 1))::bigint AS polls FROM allowed),
due AS MATERIALIZED (
    SELECT d.generation_id, a.id AS credential_id
      FROM allowed a CROSS JOIN LATERAL (
           SELECT e.generation_id FROM (VALUES (0, a.since), (1, a.late_since)) AS l (lane, since) CROSS JOIN LATERAL (
                  SELECT p.generation_id FROM polls p
                   WHERE p.credential_id = a.id AND p.lane = l.lane AND p.due_at >= l.since AND p.due_at <= :now
                   ORDER BY p.due_at LIMIT greatest(a.asks, 0)::bigint FOR UPDATE SKIP LOCKED) e
            LIMIT greatest(a.asks, 0)::bigint) d
     LIMIT (SELECT polls FROM most)),
strained AS MATERIALIZED (
    SELECT a.id, exp(least(a.lag, {MOST_LAG}, CASE WHEN j.due < n.asks + {MOST_COUNTED}
                                                   THEN greatest(j.due - n.asks, 0) / (a.rate * a.size) END) / 16) AS stretch
      FROM allowed a JOIN (SELECT credential_id, count(*) AS asks FROM due GROUP BY 1) n ON n.credential_id = a.id
           CROSS JOIN LATERAL (
           SELECT count(*) AS due FROM (
                  SELECT FROM polls p WHERE p.credential_id = a.id AND p.lane = 0 AND p.due_at >= a.since AND p.due_at <= :now
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
      FROM due d JOIN allowed a ON a.id = d.credential_id GROUP BY d.credential_id),
moved AS (
    UPDATE polls p
       SET due_at = {_NEXT}, asked_at = :now, fence = p.fence + 1,
           watched_at = CASE WHEN p.failures = 0 AND p.asked_at IS NOT NULL THEN p.asked_at ELSE p.watched_at END
     WHERE p.generation_id = ANY (ARRAY(SELECT generation_id FROM due))
    RETURNING p.generation_id, p.fence, p.clock_id)
SELECT clock_id, count(*), (SELECT polls FROM most), string_agg(CAST(generation_id AS text), ','), string_agg(CAST(fence AS text), ',')
  FROM moved GROUP BY clock_id""")
# `= ANY(ARRAY(...))` and not a join: the planner cannot know the limits above, expects many rows and scans the whole table.
# Who was served last is last in turn.


class Claimed(NamedTuple):
    """What a claim took, and how many polls of it each clock has. `full`: the limit cut it off, so that more is due."""

    polls: Bundle
    clocks: dict[int, int]
    full: bool

    @property
    def total(self) -> int:
        """How many polls."""
        return sum(self.clocks.values())


def claim(
    tx: Transaction, *, batch: UUID, now: datetime, limit: int, longest: float, most_slow: int, probe_waits: Sequence[float],
    starts: Starts,
) -> Claimed | None:  # fmt: skip
    """Claim up to `limit` due polls within every credential's budget, and move each to its next time. None: nothing may be asked now.

    Where one request asks about many, up to TOGETHER times as many; and about as many of each kind where both have more accounts than room.

    While `most_slow` batches are open for long, credentials whose answers take long or fail wait for their own flights to land.
    """
    held = ready(tx, now, starts)
    if not held:
        return None
    rows = tx.execute(
        CLAIM,
        {
            "now": now,
            "held": [account.id for account in held],
            "since": [account.since for account in held],
            "late_since": [account.late_since for account in held],
            "most_slow": most_slow,
            "slow": now + FLIGHT_LEASE - SLOW,
            "n": limit,
            "batch": batch,
            "longest": longest,
            "flight_until": now + UNREAD_LEASE,
            "probe_waits": list(probe_waits),
            "probe_steps": len(probe_waits),
            "failing": FAILING,
        },
    ).all()
    if not rows:
        return None
    clock_ids, counts, most, ids, fences = zip(*rows, strict=True)
    return Claimed(
        Bundle(f"{{{','.join(ids)}}}", f"{{{','.join(fences)}}}"),
        dict(zip(clock_ids, counts, strict=True)),
        full=sum(counts) >= most[0],
    )


def release(tx: Transaction, claims: Sequence[tuple[UUID, int]], at: datetime) -> None:
    """Make claimed polls due again that were not asked about, at `at` or sooner; the look that did not take place is forgotten.

    So is its claim: the fence goes back by one, since it counts polls. Only who holds the claim may do so, and must not use it again.
    """
    if claims:
        schedule.hold(tx, [key for key, _ in claims])
        tx.execute(
            text(
                "UPDATE polls p SET due_at = least(p.due_at, :at), asked_at = p.watched_at, fence = p.fence - 1"
                " FROM unnest(CAST(:ids AS uuid[]), CAST(:fences AS int[])) AS c (id, fence)"
                " WHERE p.generation_id = c.id AND p.fence = c.fence"
            ),
            {"at": at, "ids": [key for key, _ in claims], "fences": [fence for _, fence in claims]},
        )
