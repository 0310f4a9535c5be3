"""Generations as people read them: insert, find, list, lock, rewrite."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from tracker.core.generation import Generation, LastProblem, State
from tracker.store.db import Transaction, ahead, text
from tracker.store.rows import (
    as_records,
    failure_from,
    failure_to,
    one_record,
    outputs_from,
    outputs_to,
    problem_from,
    records,
)

_COLUMNS = """
SELECT g.*, c.name AS credential, p.fence, p.due_at, p.asked_at, p.progress AS poll_progress, p.problem_code, p.problem_message,
       p.problem_at, p.problem_run, p.clock_id, p.clock_from
  FROM generations g JOIN credentials c ON c.id = g.credential_id LEFT JOIN polls p ON p.generation_id = g.id"""


def _generation(row: Any) -> Generation:
    scheduled = row.fence is not None
    problem = problem_from(row.last_problem)
    if row.problem_code is not None:
        problem = LastProblem(row.problem_code, row.problem_message, row.problem_at, row.problem_run)
    return Generation(
        id=row.id,
        project_id=row.project_id,
        provider=row.provider,
        credential_id=row.credential_id,
        credential=row.credential,
        task_id=row.task_id,
        state=State(row.state),
        registered_at=row.registered_at,
        timeout=row.timeout,
        timeout_at=row.timeout_at,
        give_up_at=row.give_up_at,
        kind=row.kind,
        model=row.model,
        provider_status=row.provider_status,
        progress=row.poll_progress if scheduled else row.progress,
        outputs=outputs_from(row.outputs),
        error=failure_from(row.error),
        last_problem=problem,
        metadata=row.metadata,
        tags=tuple(row.tags),
        webhook_url=row.webhook_url,
        webhook_events=None if row.webhook_events is None else tuple(row.webhook_events),
        webhook_receiver_id=row.webhook_receiver_id,
        download=None if row.download is None else tuple(row.download),
        submitted_at=row.submitted_at,
        finished_at=row.finished_at,
        last_polled_at=row.asked_at if scheduled else row.last_polled_at,
        next_poll_at=row.due_at,
        polls=row.polls + (row.fence or 0),
        version=row.version,
        sequence=row.sequence,
        poll_price=row.poll_price,
        poll_longest=row.poll_longest,
        clock_id=row.clock_id,
        clock_from=row.clock_from,
    )


def get(tx: Transaction, project_id: UUID, generation_id: UUID) -> Generation | None:
    """One generation of a project."""
    row = tx.execute(
        text(f"{_COLUMNS} WHERE g.id = :id AND g.project_id = :project_id"),
        {"id": generation_id, "project_id": project_id},
    ).first()
    return None if row is None else _generation(row)


Task = tuple[str, int, str]
"""What a project knows a generation by: provider, credential and the provider's id."""


def of_tasks(tx: Transaction, project_id: UUID, tasks: Collection[Task]) -> dict[Task, Generation]:
    """The generations that these tasks are registered as; others are left out."""
    if not tasks:
        return {}
    providers, accounts, task_ids = (list(column) for column in zip(*tasks, strict=True))
    rows = tx.execute(
        text(
            # One probe of the unique index for each: on a table that was never analysed, a join may read the index whole each time.
            f"{_COLUMNS} WHERE g.id IN (SELECT f.id FROM unnest(CAST(:providers AS text[]), CAST(:accounts AS int[]),"
            " CAST(:task_ids AS text[])) AS t (provider, credential_id, task_id) CROSS JOIN LATERAL ("
            " SELECT o.id FROM generations o WHERE o.project_id = :project_id AND o.provider = t.provider"
            " AND o.credential_id = t.credential_id AND o.task_id = t.task_id LIMIT 1) f)"
        ),
        {"project_id": project_id, "providers": providers, "accounts": accounts, "task_ids": task_ids},
    )
    return {(row.provider, row.credential_id, row.task_id): _generation(row) for row in rows}


class Held(NamedTuple):
    """Generations that are locked, and the time once all of them were (None without any)."""

    generations: list[Generation]
    at: datetime | None


# Of one the planner keeps its plan; for an array it makes one each time, which takes longer than to find one generation.
_HELD = f"WITH held AS MATERIALIZED ({_COLUMNS} WHERE {{}} FOR NO KEY UPDATE OF g) SELECT *, clock_timestamp() AS locked_at FROM held"
_HELD_ONE, _HELD_MANY = _HELD.format("g.id = :ids"), _HELD.format("g.id = ANY (:ids) ORDER BY g.id")


def hold(tx: Transaction, generation_ids: Sequence[UUID]) -> Held:
    """Generations locked until the end of the transaction, always in the order of their ids so that two lockers never wait crosswise.

    The lock is the one that an update takes: it does not wait for those who only refer to a generation, nor they for it.
    """
    if not generation_ids:
        return Held([], None)
    one = len(generation_ids) == 1
    found = tx.execute(
        text(_HELD_ONE if one else _HELD_MANY), {"ids": generation_ids[0] if one else sorted(generation_ids)}
    )
    rows = found.all()
    return Held([_generation(row) for row in rows], rows[-1].locked_at + ahead(tx) if rows else None)


def lock(tx: Transaction, generation_ids: Sequence[UUID]) -> list[Generation]:
    """The same, for those who know the time."""
    return hold(tx, generation_ids).generations


@dataclass(frozen=True, slots=True)
class Filters:
    """What a list is narrowed to; every None or empty one lets everything through."""

    states: tuple[str, ...] = ()
    provider: str | None = None
    task_id: str | None = None
    tag: str | None = None
    registered_after: datetime | None = None
    registered_before: datetime | None = None
    before_id: UUID | None = None


_CLAUSES = {
    "states": "g.state = ANY (:states)",
    "provider": "g.provider = :provider",
    "task_id": "g.task_id = :task_id",
    "tag": "g.tags @> ARRAY[CAST(:tag AS text)]",
    "registered_after": "g.registered_at > :registered_after",
    "registered_before": "g.registered_at < :registered_before",
    "before_id": "g.id < :before_id",
}


def newest(tx: Transaction, project_id: UUID, filters: Filters, limit: int) -> list[Generation]:
    """Generations of a project, newest first."""
    given = {name: value for name in _CLAUSES if (value := getattr(filters, name))}
    if "states" in given:
        given["states"] = list(filters.states)
    where = " AND ".join(["g.project_id = :project_id", *(_CLAUSES[name] for name in given)])
    rows = tx.execute(
        text(f"{_COLUMNS} WHERE {where} ORDER BY g.id DESC LIMIT :limit"),
        {**given, "project_id": project_id, "limit": limit},
    )
    return [_generation(row) for row in rows]


_REWRITTEN = {
    "id": "uuid", "state": "text", "provider_status": "text", "outputs": "jsonb", "error": "jsonb", "progress": "real", "kind": "text",
    "credential_id": "int", "metadata": "jsonb", "tags": "text[]", "webhook_url": "text", "webhook_receiver_id": "int",
    "download": "text[]", "timeout": "float8", "timeout_at": "timestamptz", "give_up_at": "timestamptz", "finished_at": "timestamptz",
    "version": "int", "sequence": "int",
}  # fmt: skip
_REWRITE = f"""
UPDATE generations g
   SET {", ".join(f"{name} = r.{name}" for name in _REWRITTEN if name not in {"id", "timeout"})},
       timeout = make_interval(secs => r.timeout), changed_at = greatest(g.changed_at, :changed_at)
  FROM """
# The planner takes a set of records for a hundred, and would read a smaller table whole for one of them: so one is said to be one, and
# of many the ids are given a second time.
_REWRITE_ONE = f"{_REWRITE}{one_record(_REWRITTEN)} WHERE g.id = r.id"
_REWRITE_MANY = f"{_REWRITE}{records(_REWRITTEN)} WHERE g.id = r.id AND g.id = ANY (:ids)"


def rewrite(tx: Transaction, generations: Sequence[Generation], now: datetime) -> None:
    """Store locked generations as they are now."""
    if generations:
        rows = as_records(
            generations,
            _REWRITTEN,
            outputs=[outputs_to(g.outputs) for g in generations],
            error=[failure_to(g.error) for g in generations],
            timeout=[g.timeout.total_seconds() for g in generations],
        )
        many = {"ids": [g.id for g in generations]} if len(generations) > 1 else {}
        tx.execute(text(_REWRITE_MANY if many else _REWRITE_ONE), {"rows": rows, "changed_at": now, **many})


def delete(tx: Transaction, project_id: UUID, generation_id: UUID) -> bool:
    """Forget a generation and all that hangs on it; False when there is none."""
    gone = tx.execute(
        text("DELETE FROM generations WHERE id = :id AND project_id = :project_id"),
        {"id": generation_id, "project_id": project_id},
    )
    return gone.rowcount > 0


def keep_answers(tx: Transaction, answers: Sequence[tuple[UUID, bytes]], now: datetime) -> None:
    """Keep providers' own bodies; called only when state, provider status or outputs changed."""
    if answers:
        tx.execute(
            text(
                "INSERT INTO answers (generation_id, body, at)"
                " SELECT id, body, :at FROM unnest(CAST(:ids AS uuid[]), CAST(:bodies AS bytea[])) AS a (id, body) ORDER BY id"
                " ON CONFLICT (generation_id) DO UPDATE SET body = excluded.body, at = excluded.at"
            ),
            {"ids": [key for key, _ in answers], "bodies": [body for _, body in answers], "at": now},
        )


def answer(tx: Transaction, generation_id: UUID) -> bytes | None:
    """The provider's own body, as it was when something last changed."""
    body: bytes | None = tx.execute(
        text("SELECT body FROM answers WHERE generation_id = :id"), {"id": generation_id}
    ).scalar_one_or_none()
    return body


def answer_to(
    tx: Transaction, project_id: UUID, provider: str, task_id: str, credential_ids: Sequence[int] | None
) -> tuple[State | None, bytes | None]:
    """The state of a task that is registered (with one of these credentials, or any), and the provider's own body where there is one."""
    row = tx.execute(
        text(
            "SELECT g.state, a.body FROM generations g LEFT JOIN answers a ON a.generation_id = g.id"
            " WHERE g.project_id = :project_id AND g.provider = :provider AND g.task_id = :task_id"
            " AND (CAST(:accounts AS int[]) IS NULL OR g.credential_id = ANY (:accounts)) ORDER BY g.id DESC LIMIT 1"
        ),
        {
            "project_id": project_id,
            "provider": provider,
            "task_id": task_id,
            "accounts": None if credential_ids is None else list(credential_ids),
        },
    ).first()
    return (None, None) if row is None else (State(row.state), row.body)


def versions(tx: Transaction, generation_ids: Sequence[UUID]) -> dict[UUID, int]:
    """The present version of each; the deleted are left out."""
    rows = tx.execute(text("SELECT id, version FROM generations WHERE id = ANY (:ids)"), {"ids": list(generation_ids)})
    return {row.id: row.version for row in rows}


def counts(tx: Transaction) -> list[tuple[str, str, int]]:
    """How many generations there are, by provider and state."""
    rows = tx.execute(text("SELECT provider, state, count(*) FROM generations GROUP BY 1, 2 ORDER BY 1, 2"))
    return [(row[0], row[1], row[2]) for row in rows]
