"""The schedule's rows: entering, changing, leaving. Rows are locked in the order of their ids, always after their generations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from tracker.store.db import Transaction, text
from tracker.store.rows import as_records, records


@dataclass(frozen=True, slots=True)
class PollChange:
    """What one observation changes in the schedule's row. `due_at` None leaves what the claim arranged, `clock_id` None the clock."""

    generation_id: UUID
    fence: int
    due_at: datetime | None
    progress: float | None
    failures: int
    problem_run: int
    problem_code: str | None
    problem_message: str | None
    problem_at: datetime | None
    answered_late: bool
    lane: int
    clock_id: int | None
    clock_from: datetime | None


def hold(tx: Transaction, generation_ids: Iterable[UUID]) -> None:
    """Lock rows of the schedule in the order of their ids: whoever writes several takes them so, and nobody waits crosswise."""
    ids = sorted(generation_ids)
    if len(ids) > 1:
        tx.execute(
            text("SELECT FROM polls WHERE generation_id = ANY (:ids) ORDER BY generation_id FOR NO KEY UPDATE"),
            {"ids": ids},
        )


_NEWS = {
    "progress": "coalesce(c.progress, p.progress)", "failures": "c.failures", "problem_run": "c.problem_run",
    "problem_code": "coalesce(c.problem_code, p.problem_code)",
    "problem_message": "coalesce(c.problem_message, p.problem_message)",
    "problem_at": "coalesce(c.problem_at, p.problem_at)", "answered": "c.fence",
}  # fmt: skip
"""What an answer tells, as long as none to a newer claim was taken in. Whether there is a newer claim says nothing: while a provider
hangs, every answer comes after the next claim. (An answer with a fence yet to come is to a row that was here before.)"""
_IN_TURN = ", ".join(
    f"{name} = CASE WHEN p.answered > c.fence OR c.fence > p.fence THEN p.{name} ELSE {news} END"
    for name, news in _NEWS.items()
)


def change(tx: Transaction, changes: Sequence[PollChange]) -> None:
    """Write what observations changed. A newer claim keeps its due time unless ours lies later (a back-off must hold).

    The clock changes with the state, whose change the generation's lock has put in order already.
    """
    if not changes:
        return
    columns = {name: [getattr(c, name) for c in changes] for name in PollChange.__dataclass_fields__}
    tx.execute(
        text(
            f"""
            UPDATE polls p
               SET due_at = CASE WHEN c.due_at IS NULL THEN p.due_at WHEN p.fence = c.fence THEN c.due_at
                                 ELSE greatest(p.due_at, c.due_at) END,
                   answered_late = p.answered_late OR c.answered_late, lane = greatest(p.lane, c.lane),
                   clock_id = coalesce(c.clock_id, p.clock_id), clock_from = coalesce(c.clock_from, p.clock_from),
                   {_IN_TURN}
              FROM unnest(CAST(:generation_id AS uuid[]), CAST(:fence AS int[]), CAST(:due_at AS timestamptz[]),
                          CAST(:progress AS real[]), CAST(:failures AS int[]), CAST(:problem_run AS int[]),
                          CAST(:problem_code AS text[]), CAST(:problem_message AS text[]), CAST(:problem_at AS timestamptz[]),
                          CAST(:answered_late AS bool[]), CAST(:lane AS int[]), CAST(:clock_id AS int[]),
                          CAST(:clock_from AS timestamptz[]))
                   AS c (generation_id, fence, due_at, progress, failures, problem_run, problem_code, problem_message, problem_at,
                         answered_late, lane, clock_id, clock_from)
             WHERE p.generation_id = c.generation_id"""
        ),
        columns,
    )


@dataclass(frozen=True, slots=True)
class Scheduled:
    """A generation as it enters the schedule. `price` and `longest` are its own; None is the credential's, else the installation's."""

    generation_id: UUID
    credential_id: int
    clock_id: int
    due_at: datetime
    clock_from: datetime
    timeout_at: datetime
    price: float | None
    longest: float | None


TYPES = {
    "generation_id": "uuid", "credential_id": "int", "clock_id": "int", "due_at": "timestamptz", "clock_from": "timestamptz",
    "timeout_at": "timestamptz", "price": "real", "longest": "real",
}  # fmt: skip
COLUMNS = ", ".join(TYPES)
_KNOBS = {"price": "coalesce(r.price, c.poll_price)", "longest": "coalesce(r.longest, c.poll_longest)"}
ENTRY = ", ".join(_KNOBS.get(name, f"r.{name}") for name in TYPES)
"""What to insert for a record `r` of TYPES and its credential `c`."""


def enter(tx: Transaction, entering: Sequence[Scheduled]) -> None:
    """Put generations on the schedule (or back on it, as new)."""
    if not entering:
        return
    tx.execute(
        text(
            f"""
            INSERT INTO polls ({COLUMNS})
            SELECT {ENTRY} FROM {records(TYPES)} JOIN credentials c ON c.id = r.credential_id
            ON CONFLICT (generation_id) DO UPDATE
               SET credential_id = excluded.credential_id, clock_id = excluded.clock_id, due_at = excluded.due_at,
                   clock_from = excluded.clock_from, timeout_at = excluded.timeout_at, lane = 0, failures = 0, problem_run = 0,
                   answered_late = false, price = excluded.price, longest = excluded.longest"""
        ),
        {"rows": as_records(entering, TYPES)},
    )


def steer(tx: Transaction, credential_id: int, now: datetime) -> None:
    """Carry a credential's changed price and longest gap to its generations that have none of their own.

    A next poll that lies further ahead than the new longest gap comes nearer; one that a failure put off stays.
    """
    tx.execute(
        text(
            """
            WITH held AS MATERIALIZED (
                SELECT generation_id FROM polls WHERE credential_id = :id ORDER BY generation_id FOR NO KEY UPDATE),
            knobs AS MATERIALIZED (
                SELECT g.id, coalesce(g.poll_price, c.poll_price) AS price, coalesce(g.poll_longest, c.poll_longest) AS longest
                  FROM held JOIN generations g ON g.id = held.generation_id JOIN credentials c ON c.id = :id)
            UPDATE polls p
               SET price = k.price, longest = k.longest,
                   due_at = CASE WHEN p.failures = 0 AND p.lane = 0
                                 THEN least(p.due_at, :now + make_interval(secs => k.longest * (0.9 + 0.1 * random())))
                                 ELSE p.due_at END
              FROM knobs k
             WHERE p.generation_id = k.id AND (p.price, p.longest) IS DISTINCT FROM (k.price, k.longest)"""
        ),
        {"id": credential_id, "now": now},
    )


def leave(tx: Transaction, generation_ids: Sequence[UUID]) -> None:
    """Take generations off the schedule; what their rows counted is kept on the generation."""
    if generation_ids:
        # Of one the planner keeps its plan; for an array it makes one each time.
        one = len(generation_ids) == 1
        tx.execute(_LEAVE_ONE if one else _LEAVE_MANY, {"ids": generation_ids[0] if one else list(generation_ids)})


_LEAVE = """
WITH gone AS (DELETE FROM polls WHERE generation_id = {} RETURNING *)
UPDATE generations g
   SET polls = g.polls + gone.fence, last_polled_at = gone.asked_at, progress = coalesce(g.progress, gone.progress),
       last_problem = CASE WHEN gone.problem_code IS NULL THEN g.last_problem ELSE jsonb_build_object(
           'code', gone.problem_code, 'message', gone.problem_message, 'at', gone.problem_at,
           'in_a_row', gone.problem_run) END
  FROM gone WHERE g.id = gone.generation_id"""
_LEAVE_ONE, _LEAVE_MANY = text(_LEAVE.format(":ids")), text(_LEAVE.format("ANY (:ids)"))


def ask_now(tx: Transaction, generation_id: UUID, now: datetime) -> bool:
    """Make one poll due; False when the generation is not on the schedule."""
    moved = tx.execute(
        text("UPDATE polls SET due_at = least(due_at, :now) WHERE generation_id = :id"),
        {"id": generation_id, "now": now},
    )
    return moved.rowcount > 0


def move_deadline(tx: Transaction, generation_id: UUID, timeout_at: datetime, now: datetime) -> None:
    """Carry a changed timeout to the schedule, whose next look must not lie far behind it."""
    tx.execute(
        text(
            "UPDATE polls SET timeout_at = :at, due_at = least(due_at, greatest(:at, :now)) WHERE generation_id = :id"
        ),
        {"id": generation_id, "at": timeout_at, "now": now},
    )


def extend_deadlines(tx: Transaction, by: timedelta, now: datetime, credential_id: int | None = None) -> int:
    """Move deadlines by time that did not count: a credential was paused, or (None) we were down. Returns how many moved.

    No generation is given more than it has lived, and a paused credential's get theirs when it resumes. Where the timeout has passed
    already, only the giving up moves.
    """
    which = "c.id = :credential_id" if credential_id is not None else "c.state <> 'paused'"
    moved = tx.execute(
        text(
            f"""
            WITH pending AS MATERIALIZED (
                SELECT g.id, greatest(least(CAST(:by AS interval), :now - g.registered_at), interval '0') AS by
                  FROM generations g JOIN credentials c ON c.id = g.credential_id
                 WHERE g.state NOT IN ('completed', 'failed', 'cancelled') AND {which}
                 ORDER BY g.id FOR NO KEY UPDATE OF g),
            scheduled AS MATERIALIZED (
                SELECT p.generation_id FROM polls p JOIN pending ON pending.id = p.generation_id
                 ORDER BY p.generation_id FOR NO KEY UPDATE OF p),
            moved AS (
                UPDATE generations g
                   SET timeout_at = CASE WHEN g.state = 'timed_out' THEN g.timeout_at ELSE g.timeout_at + pending.by END,
                       give_up_at = g.give_up_at + pending.by
                  FROM pending JOIN scheduled s ON s.generation_id = pending.id WHERE g.id = pending.id
             RETURNING g.id, g.timeout_at)
            UPDATE polls p SET timeout_at = moved.timeout_at FROM moved WHERE p.generation_id = moved.id"""
        ),
        {"by": by, "now": now, "credential_id": credential_id},
    )
    return moved.rowcount


def not_found(tx: Transaction, credential_id: int) -> tuple[int, int]:
    """How many of a credential's scheduled generations were last answered with not-found, and how many there are."""
    row = tx.execute(
        text(
            "SELECT count(*) FILTER (WHERE problem_run > 0 AND problem_code = 'not_found'), count(*)"
            " FROM polls WHERE credential_id = :id"
        ),
        {"id": credential_id},
    ).one()
    return row[0], row[1]


def count_pending(tx: Transaction, credential_id: int) -> int:
    """How many generations of a credential are on the schedule."""
    return int(
        tx.execute(text("SELECT count(*) FROM polls WHERE credential_id = :id"), {"id": credential_id}).scalar_one()
    )
