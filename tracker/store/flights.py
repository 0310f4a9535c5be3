"""What is in flight at the providers, batch by batch, and what an account can afford.

A budget is tokens and room: tokens refill with time, room is what the account's concurrency leaves beside all flights. The claim spends
both for whole batches; whoever asks for more has to ask here first. Credentials are locked before flights, in the order of their ids.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from tracker.store.db import Transaction, text

BURST = 0.3
"""Seconds of a credential's rate that may be saved up, besides one request: in any 10 s at most 3 % more than the rate is paid for. What is
paid for at two moments may come together at the provider, so a bound of 5 % needs room."""
UNREAD_LEASE = timedelta(seconds=15)
"""A batch message that nobody took within this is void: it was lost, or its polls are due again."""
FLIGHT_LEASE = timedelta(seconds=75)
"""After this a batch that was taken and never reported back no longer counts against its credentials' concurrency: longer than one takes
when each question is answered only at its deadline of 15 s, and three more follow from it: singly what a batch failed for, singly what it
left out, and the second one about what is completed."""

HAVE = f"""least(c.requests_per_second * {BURST} + 1,
                 c.tokens + c.requests_per_second * extract(epoch FROM CAST(:now AS timestamptz) - c.refilled_at))::float8"""
"""A credential's tokens at this moment. One whole request can always be saved up, however slow the account is."""


def paid(tx: Transaction, batch: UUID) -> dict[int, int]:
    """How many requests a batch's claim paid for, by credential."""
    rows = tx.execute(text("SELECT credential_id, asks FROM flights WHERE batch_id = :batch"), {"batch": batch})
    return {row.credential_id: row.asks for row in rows}


def afford(
    tx: Transaction, batch: UUID, wanted: Mapping[int, int], flying: Mapping[int, int], now: datetime
) -> dict[int, int]:
    """Take tokens and room for questions that follow from a batch's answers, beside those of it that are `flying`; returns how many.

    All by credential.

    Nobody in debt gets anything; who is not gets one at least: a slow account saves up too little to pay for a batch and a question
    that follows from it.
    """
    _hold_credentials(tx, wanted)
    rows = tx.execute(
        text(
            f"""
            WITH purse AS MATERIALIZED (
                SELECT c.id, w.asks, w.flying, {HAVE} AS have,
                       c.concurrency - w.flying - coalesce((SELECT sum(f.asks) FROM flights f WHERE f.credential_id = c.id
                                                    AND f.until > :now AND f.batch_id <> :batch), 0) AS room
                  FROM unnest(CAST(:ids AS int[]), CAST(:asks AS int[]), CAST(:flying AS int[])) AS w (id, asks, flying)
                       JOIN credentials c ON c.id = w.id),
            granted AS MATERIALIZED (
                SELECT id, flying, have,
                       greatest(least(asks, room, CASE WHEN have < 0 THEN 0 ELSE greatest(floor(have), 1) END), 0)::int AS asks
                  FROM purse),
            spent AS (
                UPDATE credentials c SET tokens = g.have - g.asks, refilled_at = :now FROM granted g WHERE c.id = g.id),
            flown AS (
                UPDATE flights f SET asks = g.flying + g.asks
                  FROM granted g WHERE f.batch_id = :batch AND f.credential_id = g.id)
            SELECT id, asks FROM granted"""
        ),
        {
            "batch": batch,
            "now": now,
            "ids": list(wanted),
            "asks": list(wanted.values()),
            "flying": [flying.get(key, 0) for key in wanted],
        },
    )
    return {row.id: row.asks for row in rows}


def withdraw(tx: Transaction, batch: UUID) -> bool:
    """Take back a batch that nobody will ask: its budget is not spent. False when a worker has taken it after all."""
    _hold_credentials(tx, paid(tx, batch))
    withdrawn = tx.execute(
        text(
            "WITH gone AS (DELETE FROM flights WHERE batch_id = :batch AND NOT taken RETURNING credential_id, asks)"
            " UPDATE credentials c SET tokens = c.tokens + gone.asks FROM gone WHERE c.id = gone.credential_id"
        ),
        {"batch": batch},
    )
    return withdrawn.rowcount > 0


def _hold_credentials(tx: Transaction, ids: Collection[int]) -> None:
    # In a statement of its own: the next one then sees the flights of whoever held them before us.
    tx.execute(
        text("SELECT FROM credentials WHERE id = ANY (:ids) ORDER BY id FOR NO KEY UPDATE"), {"ids": sorted(ids)}
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


def launch(tx: Transaction, batch: UUID, now: datetime) -> dict[int, int]:
    """A worker has taken the batch: how many requests its claim paid for, by credential. Empty when its message is late, or came twice."""
    taken = tx.execute(
        text(
            "UPDATE flights SET taken = true, until = :until WHERE batch_id = :batch AND NOT taken AND until > :now"
            " RETURNING credential_id, asks"
        ),
        {"batch": batch, "now": now, "until": now + FLIGHT_LEASE},
    )
    return {row.credential_id: row.asks for row in taken}


def unread(tx: Transaction, now: datetime) -> int:
    """How many batches wait to be taken; lapsed ones are swept. Those under way do not count: their worker may be dead."""
    row = tx.execute(
        text(
            "SELECT count(DISTINCT batch_id) FILTER (WHERE NOT taken AND until > :now) AS waiting,"
            " coalesce(bool_or(until <= :now), false) AS lapsed FROM flights"
        ),
        {"now": now},
    ).one()
    if row.lapsed:
        # What somebody else is about to remove is left to him: nobody waits crosswise.
        tx.execute(
            text(
                "DELETE FROM flights WHERE (batch_id, credential_id) IN"
                " (SELECT batch_id, credential_id FROM flights WHERE until <= :now FOR UPDATE SKIP LOCKED)"
            ),
            {"now": now},
        )
    return int(row.waiting)
