"""Reading and steering generations: what a person or a program does with one that is registered."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from tracker import bell, providers
from tracker.core import ids
from tracker.core.addresses import Policy, check_url
from tracker.core.generation import Generation, State
from tracker.core.lifecycle import FINAL, RETRACKABLE
from tracker.core.urls import host_of
from tracker.errors import ConflictError, FieldProblem, InvalidError, NotFoundError
from tracker.services import steps
from tracker.services.accounts import chosen, no_credential
from tracker.services.forms import GenerationChange
from tracker.services.registration import subject_of
from tracker.store import artifacts, clocks, credentials, db, endpoints, events, generations, outbox, schedule
from tracker.store.clocks import Learned
from tracker.store.db import Database, Transaction
from tracker.store.generations import Filters

log = logging.getLogger(__name__)

CLOCKS_FRESH = 10.0
"""Seconds that clocks are kept for `expected_at`."""


class Generations:
    """`remove` deletes stored copies by their keys; it is called after the commit."""

    def __init__(
        self, database: Database, bell_: bell.Bell, policy: Policy, *, price: float, base_url: str,
        remove: Callable[[Sequence[str]], None],
    ) -> None:  # fmt: skip
        self._database, self._bell, self._policy = database, bell_, policy
        self._price, self._base_url, self._remove = price, base_url, remove
        self._learned: dict[int, Learned] = {}
        self._processing: dict[tuple[str, str], Learned] = {}
        self._learned_at = float("-inf")

    def get(self, project_id: UUID, generation_id: UUID) -> Generation:
        """One generation with its stored copies. NotFoundError also for another project's."""
        with self._database.transaction() as tx:
            return self._complete(tx, [self._found(tx, project_id, generation_id)])[0]

    def page(self, project_id: UUID, filters: Filters, limit: int) -> tuple[list[Generation], UUID | None]:
        """Newest first, and the id before which the next page begins (None on the last one)."""
        with self._database.transaction() as tx:
            found = generations.newest(tx, project_id, filters, limit + 1)
            shown = self._complete(tx, found[:limit])
        return shown, shown[-1].id if len(found) > limit else None

    def transitions(self, project_id: UUID, generation_id: UUID) -> list[Any]:
        """The stored transitions, oldest first."""
        with self._database.transaction() as tx:
            self._found(tx, project_id, generation_id)
            return events.transitions(tx, generation_id)

    def answer(self, project_id: UUID, generation_id: UUID) -> bytes | None:
        """The provider's own body as it last changed."""
        with self._database.transaction() as tx:
            self._found(tx, project_id, generation_id)
            return generations.answer(tx, generation_id)

    def versions(self, generation_ids: Sequence[UUID]) -> dict[UUID, int]:
        """Present versions, for those who wait; the deleted are left out."""
        with self._database.transaction() as tx:
            return generations.versions(tx, generation_ids)

    def edit(self, project_id: UUID, generation_id: UUID, change: GenerationChange) -> Generation:
        """Change the fields that were sent. ConflictError on what an ended generation cannot change any more."""
        with self._database.transaction() as tx:
            g, now = self._locked(tx, project_id, generation_id)
            sent = change.model_fields_set
            steering = sent & {"kind", "credential", "timeout"}
            if g.state in FINAL and steering:
                raise ConflictError(
                    f"it is {g.state} and is not asked about any more; {', '.join(sorted(steering))} cannot change"
                )
            after = self._edited(tx, g, change)
            if after == g:
                return self._complete(tx, [g])[0]
            generations.rewrite(tx, [replace(after, version=g.version + 1)], now)
            self._carry_to_schedule(tx, g, after, now)
        self._bell.changed([str(generation_id)])
        return self.get(project_id, generation_id)

    def _edited(self, tx: Transaction, g: Generation, change: GenerationChange) -> Generation:
        sent = change.model_fields_set
        after = g
        if "kind" in sent:
            kinds = providers.get(g.provider).kinds
            if change.kind is not None and kinds and change.kind not in kinds:
                raise InvalidError(FieldProblem("kind", f"{g.provider} has the kinds {', '.join(kinds)}"))
            after = replace(after, kind=change.kind)
        if "credential" in sent:
            account = chosen(credentials.of_project(tx, g.project_id), g.provider, change.credential)
            if account is None or g.provider not in credentials.hold(tx, account.id):
                raise InvalidError(no_credential(g.provider, change.credential))
            task = (g.provider, account.id, g.task_id)
            other = generations.of_tasks(tx, g.project_id, [task]).get(task)
            if other is not None and other.id != g.id:
                raise ConflictError(
                    "this task is registered with that credential already", id=ids.public("gen", other.id)
                )
            after = replace(after, credential_id=account.id, credential=account.name)
        if "timeout" in sent:
            # From the present deadline, not from the registration: time that did not count stays uncounted.
            at = g.timeout_at + (change.timeout - g.timeout)
            after = replace(after, timeout=change.timeout, timeout_at=at, give_up_at=max(g.give_up_at, at))
        if "webhook_url" in sent:
            after = replace(
                after, webhook_url=change.webhook_url, webhook_receiver_id=self._receiver(tx, g, change.webhook_url)
            )
        if "tags" in sent:
            after = replace(after, tags=tuple(change.tags))
        return replace(after, metadata=change.metadata) if "metadata" in sent else after

    def _receiver(self, tx: Transaction, g: Generation, url: str | None) -> int | None:
        if url is None:
            return None
        if refused := check_url(url, self._policy, https_only=True):
            raise InvalidError(FieldProblem("webhook_url", refused))
        host = host_of(url)
        return endpoints.receivers_of_hosts(tx, g.project_id, [host])[host]

    def _carry_to_schedule(self, tx: Transaction, before: Generation, after: Generation, now: datetime) -> None:
        if after.state in FINAL:
            return
        if after.credential_id != before.credential_id or subject_of(after) != subject_of(before):
            self._enter(tx, after, now)
        elif after.timeout_at != before.timeout_at:
            schedule.move_deadline(tx, after.id, after.timeout_at, now)

    def delete(self, project_id: UUID, generation_id: UUID) -> None:
        """Forget a generation, its history and its stored copies."""
        with self._database.transaction() as tx:
            g, _ = self._locked(tx, project_id, generation_id)
            keys = artifacts.object_keys(tx, generation_id)
            generations.delete(tx, project_id, generation_id)
        _say(g, "forgotten")
        self._bell.changed([str(generation_id)])
        self._remove(keys)

    def cancel(self, project_id: UUID, generation_id: UUID) -> Generation:
        """Stop tracking (the provider is not told). Cancelling again is no error; a completed or failed one is a conflict."""
        with self._database.transaction() as tx:
            g, now = self._locked(tx, project_id, generation_id)
            if g.state in FINAL - {State.CANCELLED}:
                raise ConflictError(f"it is {g.state}, and that is final")
            if g.state is State.CANCELLED:
                return self._complete(tx, [g])[0]
            step = steps.moved(g, State.CANCELLED, now, self._base_url, detail={"by": "its owner"})
            self._store(tx, step, now)
            schedule.leave(tx, [g.id])
        _say(g, "cancelled")
        self._bell.ring(bell.SEND, bell.WEBHOOK, because="1 cancelled")
        self._bell.changed([str(generation_id)])
        # As it would be read now: what it has of the schedule, which it has left, was read under its lock, and copies it has none.
        return replace(step.generation, clock_id=None, clock_from=None)

    def poll(self, project_id: UUID, generation_id: UUID) -> Generation:
        """Ask the provider now. ConflictError on a final one."""
        with self._database.transaction() as tx:
            g, now = self._locked(tx, project_id, generation_id)
            if g.state in FINAL:
                raise ConflictError(f"it is {g.state}, and that is final; retrack it if it ended by mistake")
            if not schedule.ask_now(tx, g.id, now):
                self._enter(tx, g, now)
        self._bell.ring(bell.DISPATCH, bell.DEFAULT, because="asked for now")
        return self.get(project_id, generation_id)

    def retrack(self, project_id: UUID, generation_id: UUID) -> Generation:
        """Track again what ended by mistake; deadlines run anew. ConflictError on a completed one."""
        with self._database.transaction() as tx:
            # The account first, as everywhere: its deletion locks its generations after it.
            account = self._found(tx, project_id, generation_id).credential_id
            served = credentials.hold(tx, account)
            g, now = self._locked(tx, project_id, generation_id)
            if g.state is State.COMPLETED:
                raise ConflictError("it is completed: there is nothing to track again")
            if g.credential_id != account:
                raise ConflictError("its credential is being changed at this moment; try again")
            if g.state in RETRACKABLE and g.provider not in served:
                raise ConflictError(
                    f"its credential {g.credential!r} was deleted; PUT /v1/credentials/{g.credential} with"
                    f" providers [{g.provider!r}] first",
                    code="credential_deleted",
                )
            if g.state in RETRACKABLE:
                step = steps.retracked(g, now, self._base_url)
                self._store(tx, step, now)
                self._enter(tx, step.generation, now)
        if g.state in RETRACKABLE:
            _say(g, "tracked again")
        self._bell.ring(bell.DISPATCH, bell.DEFAULT, because="1 tracked again")
        self._bell.changed([str(generation_id)])
        return self.get(project_id, generation_id)

    def download(self, project_id: UUID, generation_id: UUID, kinds: list[str] | None) -> Generation:
        """Keep copies of these kinds (None: of everything): now when it is completed, else once it will be."""
        with self._database.transaction() as tx:
            g, now = self._locked(tx, project_id, generation_id)
            if g.state in {State.FAILED, State.CANCELLED}:
                raise ConflictError(f"it is {g.state}: there is nothing to download")
            both = () if kinds is None or g.download == () else tuple(dict.fromkeys([*(g.download or ()), *kinds]))
            after = replace(g, download=both)
            if g.state is State.COMPLETED:
                artifacts.wish(tx, [(g, output) for output in g.outputs if after.wants(output)], now)
            if after != g:
                generations.rewrite(tx, [replace(after, version=g.version + 1)], now)
        self._bell.ring(bell.FETCH, bell.DOWNLOAD, because="asked for")
        return self.get(project_id, generation_id)

    def _enter(self, tx: Transaction, g: Generation, now: datetime) -> None:
        # One that is being made stays where it is on its clock, whoever is asked about it.
        began = g.clock_from if g.state is State.PROCESSING else None
        key, phase = (g.provider, subject_of(g)), "waiting" if began is None else "processing"
        learned = clocks.ensure(tx, [key], phase, price=self._price)[key]
        entry = schedule.Scheduled(
            generation_id=g.id, credential_id=g.credential_id, clock_id=learned.id, due_at=now,
            clock_from=began or g.submitted_at or g.registered_at, timeout_at=g.timeout_at, price=g.poll_price, longest=g.poll_longest,
        )  # fmt: skip
        schedule.enter(tx, [entry])

    def _store(self, tx: Transaction, step: steps.Step, now: datetime) -> None:
        generations.rewrite(tx, [step.generation], now)
        if step.event is not None:
            outbox.publish(tx, [(step.event, step.generation)], now)

    @staticmethod
    def _found(tx: Transaction, project_id: UUID, generation_id: UUID) -> Generation:
        g = generations.get(tx, project_id, generation_id)
        if g is None:
            raise NotFoundError("generation", ids.public("gen", generation_id))
        return g

    @staticmethod
    def _locked(tx: Transaction, project_id: UUID, generation_id: UUID) -> tuple[Generation, datetime]:
        """The generation under its lock, and the time by then: its events never go backwards."""
        held = generations.hold(tx, [generation_id])
        for g in held.generations:
            if held.at and g.project_id == project_id:
                return g, held.at
        raise NotFoundError("generation", ids.public("gen", generation_id))

    def _complete(self, tx: Transaction, found: Sequence[Generation]) -> list[Generation]:
        """Add the stored copies, and when the end is expected."""
        copies = artifacts.of_generations(tx, [g.id for g in found])
        if monotonic() - self._learned_at > CLOCKS_FRESH:
            self._learned = {learned.id: learned for learned in clocks.everything(tx)}
            made = [learned for learned in self._learned.values() if learned.phase == "processing"]
            self._processing = {(learned.provider, learned.subject): learned for learned in made}
            self._learned_at = monotonic()
        now = db.now(tx)
        return [replace(g, artifacts=copies.get(g.id, ()), expected_at=self._expected(g, now)) for g in found]

    def _expected(self, g: Generation, now: datetime) -> datetime | None:
        learned = self._learned.get(g.clock_id or 0)
        if learned is None or g.clock_from is None or g.state is State.TIMED_OUT:
            return None
        # Of a waiting one the clock ends with the start of processing, where the provider shows that: all of it is still to come.
        next_ = self._processing.get((learned.provider, learned.subject)) if learned.phase == "waiting" else None
        if min(clock.tasks for clock in (learned, next_) if clock) < 1:
            return None
        age = max(0.0, (now - g.clock_from).total_seconds())
        left = learned.clock.expected_remaining(age) + (next_.clock.expected_remaining(0.0) if next_ else 0.0)
        return now + timedelta(seconds=left)


def _say(g: Generation, what: str) -> None:
    log.info("%s: %s", g.task_id, what, extra={"generation": ids.public("gen", g.id)})
