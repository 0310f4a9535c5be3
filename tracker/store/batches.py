"""A batch of claimed polls: as its message carries it, and with all that asking about it needs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from tracker.core.generation import State
from tracker.core.lifecycle import Known
from tracker.store.db import Transaction
from tracker.store.rows import outputs_from


class Bundle(NamedTuple):
    """Claimed polls as a message carries them: PostgreSQL's own arrays, written out, which nobody takes apart on the way."""

    ids: str
    fences: str

    @property
    def polls(self) -> int:
        """How many they are."""
        return self.ids.count(",") + 1

    @property
    def pairs(self) -> list[tuple[UUID, int]]:
        """Each poll's id and its fence, which tells whether this claim is still the latest."""
        ids, fences = (array[1:-1].split(",") for array in self)
        return [(UUID(key), int(fence)) for key, fence in zip(ids, fences, strict=True)]


class Asked(NamedTuple):
    """A claimed generation with all that asking about it needs: the columns of ASKED, as they come.

    Thousands of these are made a second, and nearly all answers change nothing. So moments are seconds since 1970, which cost a tenth of
    what datetimes do, and what only the others need is made when it is asked for.
    """

    id: UUID
    provider: str
    credential_id: int
    task_id: str
    kind: str | None
    fence: int
    clock_id: int
    clock: float
    watched: float | None
    asked: float
    due: float
    timeout: float
    price: float | None
    longest: float
    state: str
    provider_status: str | None
    progress: float | None
    failures: int
    problem_code: str | None
    problem_run: int
    answered_late: bool
    outputs: Any
    registered: float
    submitted: float | None
    give_up: float

    @property
    def clock_from(self) -> datetime:
        """When the time began that its clock measures."""
        return moment(self.clock)

    def uncounted(self, pause: timedelta) -> Asked:
        """The same with its deadlines as they will be when its account goes on after this pause, as `extend_deadlines` moves them."""
        by = max(0.0, min(pause.total_seconds(), self.asked - self.registered))
        timeout = self.timeout if self.state == State.TIMED_OUT else self.timeout + by
        return self._replace(timeout=timeout, give_up=self.give_up + by)

    @property
    def known(self) -> Known:
        """What is known of it, for a decision."""
        return Known(
            state=State(self.state),
            registered_at=moment(self.registered),
            timeout_at=moment(self.timeout),
            give_up_at=moment(self.give_up),
            provider_status=self.provider_status,
            progress=self.progress,
            outputs=outputs_from(self.outputs) if self.outputs else (),
            failures=self.failures,
            problem_code=self.problem_code,
            problem_run=self.problem_run,
            answered_late=self.answered_late,
            longest=self.longest,
            submitted_at=None if self.submitted is None else moment(self.submitted),
        )


def moment(seconds: float) -> datetime:
    """The time so many seconds after the beginning of 1970, to the microsecond."""
    return EPOCH + timedelta(seconds=seconds)


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# Row by row through the two primary keys: joins of the planner's choice read the whole tables where these are small, which costs twice as
# much at 24,000 rows (measured).
ASKED = """
    SELECT g.id, g.provider, g.credential_id, g.task_id, g.kind, p.fence, p.clock_id,
           date_part('epoch', p.clock_from), date_part('epoch', p.watched_at), date_part('epoch', p.asked_at), date_part('epoch', p.due_at),
           date_part('epoch', p.timeout_at), p.price, coalesce(p.longest, %s)::float8, g.state, g.provider_status, p.progress,
           p.failures, p.problem_code, p.problem_run, p.answered_late, nullif(g.outputs, '[]'),
           date_part('epoch', g.registered_at), date_part('epoch', g.submitted_at), date_part('epoch', g.give_up_at)
      FROM unnest(CAST(%s AS uuid[]), CAST(%s AS int[])) AS a (id, fence)
           CROSS JOIN LATERAL (SELECT * FROM polls WHERE generation_id = a.id AND fence = a.fence LIMIT 1) p
           CROSS JOIN LATERAL (SELECT * FROM generations WHERE id = a.id LIMIT 1) g"""


def asked(tx: Transaction, claims: Bundle, longest: float) -> list[Asked]:
    """The claimed generations whose claim still holds; others are left out."""
    # In PostgreSQL's binary form: numbers and ids would be written out there and read again here.
    driver: Any = tx.connection.driver_connection
    with driver.cursor(binary=True) as cursor:
        cursor.execute(ASKED, (longest, claims.ids, claims.fences))
        # Fetched in one go: one by one, the fetching costs more than the query.
        return list(map(Asked._make, cursor.fetchall()))
