"""Recording what polls saw: one short transaction per slice, in which state, event, next due, deliveries and artifacts commit together.

Compare-and-set: a slice writes only what is still as it was when it was decided.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from uuid import UUID

import orjson

from tracker import bell
from tracker.core import ids, pausing
from tracker.core.events import EventType, output_fields
from tracker.core.generation import Generation, State
from tracker.core.lifecycle import FINAL, UNCHANGED, Decision, decide
from tracker.core.observation import Observation, Problem, Seen
from tracker.core.pausing import Health
from tracker.core.times import rfc3339
from tracker.services import steps
from tracker.services.learning import Learning
from tracker.store import artifacts, credentials, events, generations, outbox, schedule
from tracker.store.batches import Asked
from tracker.store.credentials import Credential
from tracker.store.db import Database, Transaction
from tracker.store.schedule import PollChange

log = logging.getLogger(__name__)


class Judged(NamedTuple):
    """One generation, what was seen of it, and what was decided."""

    asked: Asked
    seen: Observation
    decision: Decision
    body: bytes
    again: bool = False
    """Decided a second time, since somebody else was faster: what there was to learn has been learned."""


class Recording:
    """`learning` belongs to this process."""

    def __init__(self, database: Database, bell_: bell.Bell, learning: Learning, *, base_url: str) -> None:
        self._database, self._bell, self._learning, self._base_url = database, bell_, learning, base_url

    def is_outage(self, credential_id: int) -> bool:
        """Whether more than half of a credential's generations are answered with not-found: then it proves nothing about one."""
        with self._database.transaction() as tx:
            missing, pending = schedule.not_found(tx, credential_id)
        # One generation alone is no crowd: its own not-found must be able to end it.
        return pending > 1 and missing > pending / 2

    def record(self, slice_: Sequence[Judged], now: datetime, accounts: Mapping[int, Credential]) -> None:
        """Store a slice of observations; where nothing changed, nothing is written. `accounts` are as the batch found them."""
        self._learning.refresh({j.asked.clock_id for j in slice_})
        news = self._news(slice_, now.timestamp())
        if news:
            self._learning.prepare_processing(j.asked.clock_id for j in news if j.decision.to is State.PROCESSING)
            taken, made, wished = self._write(news, now)
        else:
            taken, made, wished = [], 0, 0
        for credential_id in self._ailing(slice_, news, accounts):
            made += self._judge_credential(credential_id, slice_, now)
        self._tell(taken, made, wished)
        _tell_problems(news)

    def _news(self, slice_: Sequence[Judged], now: float) -> list[Judged]:
        """What must be written; of all the others, nearly all, is learned here."""
        news, mended, watch = [], self._learning.mended, self._learning.watch
        for j in slice_:
            if j.decision is not UNCHANGED or mended(j.asked, now) is not None:
                news.append(j)
            else:
                watch(j.asked, done=False)
        return news

    def _write(self, slice_: Sequence[Judged], now: datetime) -> tuple[list[steps.Step], int, int]:
        with self._database.transaction() as tx:
            held, taken = self._settle(tx, slice_, now)
            completed = [s.generation for s in taken if s.generation.state is State.COMPLETED]
            wished = artifacts.wish(
                tx, [(g, output) for g in completed for output in g.outputs if g.wants(output)], now
            )
            generations.rewrite(tx, [s.generation for s in taken], now)
            made = outbox.publish(tx, [(s.event, s.generation) for s in taken if s.event], now)
            answers = [(j.asked.id, _answer(j)) for j in held if _shows_change(j)]
            generations.keep_answers(tx, [(key, body) for key, body in answers if body], now)
            self._write_schedule(tx, held, now)
        self._learn(held)
        return taken, made, wished

    def _learn(self, recorded: Sequence[Judged]) -> None:
        """After the write, and of what it took alone: an end is an end once. That we gave up is none, nor is a failed observation."""
        for j in recorded:
            late = j.asked.state == State.TIMED_OUT
            if isinstance(j.seen, Seen) and j.decision.problem is None and not (late or j.again):
                self._learning.watch(j.asked, done=j.seen.state in FINAL or j.decision.to is State.PROCESSING)

    def _write_schedule(self, tx: Transaction, held: Sequence[Judged], now: datetime) -> None:
        changes = [change for j in held if (change := self._poll_change(j, now))]
        leaving = [j.asked.id for j in held if j.decision.over]
        schedule.hold(tx, {change.generation_id for change in changes}.union(leaving))
        schedule.change(tx, changes)
        schedule.leave(tx, leaving)

    def _settle(
        self, tx: Transaction, slice_: Sequence[Judged], now: datetime
    ) -> tuple[list[Judged], list[steps.Step]]:
        """Lock what changes, and decide again where somebody was faster. What has ended meanwhile is left out."""
        locked = generations.hold(tx, [j.asked.id for j in slice_ if j.decision.rewrites])
        stored = {g.id: g for g in locked.generations}
        # Whoever held a lock before us wrote a later time than ours: events of one generation never go backwards.
        at = max(now, locked.at or now)
        held, taken = [], []
        for j in slice_:
            g = stored.get(j.asked.id)
            if not j.decision.rewrites:
                held.append(j)
            elif g is None or g.state in FINAL:
                self._keep_late_answer(tx, g, j, now)
            else:
                settled = j if g.state == j.asked.state else _decided_again(j, g, now)
                held.append(settled)
                taken.append(steps.observed(g, settled.decision, at, self._base_url))
        return held, taken

    def _tell(self, taken: Sequence[steps.Step], deliveries_made: int, wished: int) -> None:
        # Whoever waits for a ring comes before the log.
        if deliveries_made:
            self._bell.ring(bell.SEND, bell.WEBHOOK, because=f"{deliveries_made} deliveries")
        if wished:
            self._bell.ring(bell.FETCH, bell.DOWNLOAD, because=f"{wished} artifacts")
        self._bell.changed([str(step.generation.id) for step in taken])
        for step in taken:
            if step.event is not None:
                log.info(
                    "%s: %s",
                    step.generation.task_id,
                    step.generation.state,
                    extra={"generation": ids.public("gen", step.generation.id)},
                )

    @staticmethod
    def _keep_late_answer(tx: Transaction, g: Generation | None, j: Judged, now: datetime) -> None:
        # It was ended by somebody else while the answer was under way: a paid result stays findable.
        if g is not None and g.state is not State.COMPLETED and isinstance(j.seen, Seen) and j.seen.outputs:
            late = {"status": j.seen.status, "at": rfc3339(now), "outputs": [output_fields(o) for o in j.seen.outputs]}
            events.add_detail(tx, g.id, {"answer_after": late})

    def _poll_change(self, j: Judged, now: datetime) -> PollChange | None:
        decision, problem = j.decision, j.decision.problem
        if decision.over and problem is None:
            return None
        began = decision.to is State.PROCESSING
        a = self._learning.begun(j.asked) if began else j.asked
        due_at = self._due(a, decision, now)
        late = a.state == State.TIMED_OUT or decision.to is State.TIMED_OUT
        recovered = problem is None and a.failures > 0
        if not (began or due_at or problem or recovered or late or decision.progress is not None):
            return None
        return PollChange(
            generation_id=a.id,
            fence=a.fence,
            due_at=due_at,
            progress=decision.progress,
            failures=min(decision.failures, 1000),
            problem_run=min(decision.problem_run, 1000),
            problem_code=problem.code.value if problem else None,
            problem_message=problem.message[:500].replace("\0", "") if problem else None,
            problem_at=now if problem else None,
            answered_late=decision.answered_late,
            lane=int(late),
            clock_id=a.clock_id if began else None,
            clock_from=a.clock_from if began else None,
        )

    def _due(self, a: Asked, decision: Decision, now: datetime) -> datetime | None:
        if decision.wait is not None:
            return now + timedelta(seconds=decision.wait)
        began = decision.to is State.PROCESSING
        at = now.timestamp()
        gap = self._learning.first_gap(a, at) if began else self._learning.mended(a, at)
        return None if gap is None else now + timedelta(seconds=gap)

    @staticmethod
    def _ailing(slice_: Sequence[Judged], news: Sequence[Judged], accounts: Mapping[int, Credential]) -> list[int]:
        """The credentials whose health these answers may change: those with problems now, or that were not well before."""
        troubled = {j.asked.credential_id for j in news if isinstance(j.seen, Problem)}
        unwell = {key for key, account in accounts.items() if account.health != Health()}
        return sorted(troubled | (unwell and unwell & {j.asked.credential_id for j in slice_}))

    def _judge_credential(self, credential_id: int, slice_: Sequence[Judged], now: datetime) -> int:
        """Pause, block or resume a credential; returns how many deliveries that made.

        In a transaction of its own: it locks the credential before its generations, which a record holds already.
        """
        with self._database.transaction() as tx:
            locked = credentials.lock(tx, credential_id)
            if locked is None:
                return 0
            pending = _pending(tx, slice_, credential_id)
            answers = _answers(slice_, credential_id, locked.refused)
            health = pausing.judge(locked.health, answers, pending=pending, now=now)
            return 0 if health == locked.health else change_health(tx, locked, health, now)


def _tell_problems(slice_: Sequence[Judged]) -> None:
    for j in slice_:
        problem = j.decision.problem
        if problem is not None:
            # The first of a row tells; through an outage of a day the rest would say nothing else.
            level = logging.INFO if j.decision.problem_run == 1 else logging.DEBUG
            about = {"generation": ids.public("gen", j.asked.id)}
            log.log(level, "%s: not observed: %s: %s", j.asked.task_id, problem.code, problem.message, extra=about)


def _answers(slice_: Sequence[Judged], credential_id: int, refused: Collection[UUID]) -> list[tuple[UUID, Observation]]:
    """What the provider answered, each answer once, however many generations it was about.

    It counts for one of them that was not `refused` before: refusals of different generations are what tells about a key.
    """
    found: dict[int, tuple[UUID, Observation]] = {}
    for j in slice_:
        if j.asked.credential_id == credential_id:
            known = found.get(id(j.seen))
            if known is None or (known[0] in refused and j.asked.id not in refused):
                found[id(j.seen)] = j.asked.id, j.seen
    return list(found.values())


def _pending(tx: Transaction, slice_: Sequence[Judged], credential_id: int) -> int:
    """How many generations of this credential are on the schedule; counted only where a problem makes it matter."""
    return schedule.count_pending(tx, credential_id) if any(isinstance(j.seen, Problem) for j in slice_) else 0


def _decided_again(j: Judged, g: Generation, now: datetime) -> Judged:
    known = j.asked.known._replace(state=g.state, provider_status=g.provider_status, outputs=g.outputs)
    # Whether it is an outage is not asked again: a not-found that is judged twice ends nothing.
    return j._replace(decision=decide(known, j.seen, now=now, roll=0.5, outage=True), again=True)


def _answer(j: Judged) -> bytes:
    """The provider's answer; of a batch answer the part about this task, as the single query would have given it."""
    if j.body or not isinstance(j.seen, Seen):
        return j.body
    try:
        return orjson.dumps(j.seen.raw)
    except TypeError:
        return b""  # nested more deeply than it can be written again, which must not cost the others of its slice


def _shows_change(j: Judged) -> bool:
    return j.decision.rewrites and isinstance(j.seen, Seen)


def change_health(tx: Transaction, locked: credentials.Credential, health: Health, now: datetime) -> int:
    """Store a locked credential's health with the event of a pause or its end; returns how many deliveries that made.

    Time spent paused does not count for its generations: their deadlines move by as much.
    """
    pausing_now, resuming = health.paused and not locked.health.paused, locked.health.paused and not health.paused
    credentials.write_health(tx, locked.id, health, now if pausing_now else locked.paused_at if health.paused else None)
    if resuming and locked.paused_at is not None:
        schedule.extend_deadlines(tx, now - locked.paused_at, now, locked.id)
    if not (pausing_now or resuming):
        return 0
    type_ = EventType.CREDENTIAL_PAUSED if pausing_now else EventType.CREDENTIAL_RESUMED
    fields = {
        "credential": locked.name,
        "providers": list(locked.providers),
        "reason": health.reason or locked.paused_reason,
    }
    log.warning("credential %s: %s", locked.name, type_.value)
    return outbox.publish(tx, [(steps.of_project(type_, locked.project_id, fields, now), None)], now)
