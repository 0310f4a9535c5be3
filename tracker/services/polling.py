"""Polling: claim what is due, ask many at once, decide, record in bulk.

`dispatch` claims and publishes batches; `ask` asks one batch. The network is never spoken to inside a transaction.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from threading import Event, Lock
from time import monotonic
from uuid import UUID

from tracker import bell
from tracker.core import backoff, ids
from tracker.core.generation import State
from tracker.core.lifecycle import Decision, decide
from tracker.core.observation import Observation, Problem
from tracker.services.asking import Asking, Round
from tracker.services.learning import Learning
from tracker.services.recording import Judged, Recording
from tracker.store import clocks, credentials, db, due, switches
from tracker.store.db import Database
from tracker.store.due import Asked
from tracker.store.taking import Signs

log = logging.getLogger(__name__)

BATCH = 1000
"""Polls per claim and message. A message costs about 9 ms of Celery whatever it carries, so small ones are dear (measured)."""
BATCH_PATH_FORGOTTEN = timedelta(days=1)
"""After this a relay without a batch path is tried for one again."""
SHIFT = 0.9
"""Seconds for which a tick goes on dispatching: the next one comes after one second."""
PACE = 0.2
"""Seconds between two claims once nothing more is due: half of what a budget may save up, and little beside the gaps between polls."""
CROWDED = 0.02
"""Seconds until the next try while enough batches wait for a worker."""


class Polling:
    """`slots` is how many batches this installation works on at once."""

    def __init__(
        self,
        database: Database,
        bell_: bell.Bell,
        asking: Asking,
        learning: Learning,
        recording: Recording,
        *,
        price: float,
        longest: float,
        slots: int,
    ) -> None:
        self._database, self._bell, self._asking, self._recording = database, bell_, asking, recording
        self._learning = learning
        self._price, self._longest, self._slots = price, longest, slots
        self._clock_providers: dict[int, str] = {}
        self._pause = Event()
        self._one_at_a_time = Lock()
        self._unanswered: dict[UUID, Counter[int]] = {}
        self._signs = Signs()

    def dispatch(self, stay: float = 0.0) -> int:
        """Claim everything that is due within the budgets and publish it; returns how many polls went out.

        Goes on for `stay` seconds, taking what falls due meanwhile in small portions of time: many at once are cheap. At most two
        batches per slot wait to be taken, so that a backlog waits in the database, in order, and not in the broker.
        """
        self._bell.answered(bell.DISPATCH)
        sent, ends = 0, monotonic() + stay
        while True:
            claims = self._claim()
            if claims and claims[1]:
                sent += len(claims[1])
                if not self._publish(*claims):
                    break  # the broker is away: what is due waits in the database
            if claims is None or len(claims[1]) < BATCH:
                if monotonic() >= ends:
                    break
                self._pause.wait(CROWDED if claims is None else PACE)
        return sent

    def _publish(self, batch: UUID, polls: Sequence[due.Claim]) -> bool:
        message = [str(batch), [[c.generation_id, c.fence] for c in polls]]
        life = due.UNREAD_LEASE.total_seconds()
        return self._bell.publish(bell.ASK, bell.POLL, message, shown=self._story(polls), expires=life)

    def _claim(self) -> tuple[UUID, list[due.Claim]] | None:
        with self._database.transaction() as tx:
            now = db.now(tx)
            if "polls" in switches.stopped(tx) or due.unread(tx, now) >= 2 * self._slots:
                return None
            batch = ids.uuid7(now)
            claims = due.claim(
                tx, batch=batch, now=now, limit=BATCH, longest=self._longest, probe_waits=backoff.PAUSE_SCHEDULE
            )
            if claims:
                self._signs.sent(tx, now)
            if any(c.clock_id not in self._clock_providers for c in claims):
                self._clock_providers = {learned.id: learned.provider for learned in clocks.everything(tx)}
            return batch, claims

    def _story(self, claims: Sequence[due.Claim]) -> str:
        counted = Counter(self._clock_providers.get(c.clock_id, "?") for c in claims)
        return ", ".join(f"{provider} x{count}" for provider, count in counted.most_common())

    def ask(self, batch: UUID, claims: Sequence[tuple[str, int]]) -> int:
        """Ask about claimed generations and record what is seen, in slices as answers arrive. Returns how many were asked.

        Threads may ask at the same time; they record one after the other.
        """
        with self._database.transaction() as tx:
            started, clock = db.now(tx), monotonic()
            if not due.launch(tx, batch, started):
                return 0
            asked = due.asked(tx, claims, self._longest)
            accounts = credentials.by_id(tx, sorted({a.credential_id for a in asked}))
            paid = due.paid(tx, batch)
            self._signs.taken(tx, started)
        round_ = Round(accounts, lambda: started + timedelta(seconds=monotonic() - clock), paid=paid)
        left = self._unanswered[batch] = Counter(a.credential_id for a in asked)
        try:
            for slice_ in self._asking.observe(asked, round_):
                with self._one_at_a_time:
                    left.subtract(observed[0].credential_id for observed in slice_)
                    now = round_.now()
                    self._recording.record([self._judge(*observed, now) for observed in slice_], now, accounts)
        finally:
            del self._unanswered[batch]
            with self._one_at_a_time:
                self._land(batch, round_)
        return len(asked)

    def make_room(self, batch: UUID) -> None:
        """Let the budgets know how much of a batch is answered, while its slowest members keep it from its end."""
        with self._one_at_a_time:
            left = {
                credential_id: count for credential_id, count in self._unanswered.get(batch, {}).items() if count > 0
            }
            if left:
                with self._database.transaction() as tx:
                    due.partly_land(tx, batch, left)

    def _land(self, batch: UUID, round_: Round) -> None:
        """The batch is over: settle its account with the budgets, and let go of what was not asked about."""
        with self._learning.handing_over() as evidence, self._database.transaction() as tx:
            for credential_id in sorted(round_.without_batch | round_.extra.keys()):
                credentials.charge(tx, credential_id, round_.extra[credential_id])
                if credential_id in round_.without_batch:
                    credentials.no_batch(tx, credential_id, round_.now() + BATCH_PATH_FORGOTTEN)
                    log.info("credential %s: no working batch path; asking singly", round_.accounts[credential_id].name)
            clocks.append(tx, evidence)
            due.release(tx, [(a.id, a.fence) for a in round_.released], round_.now())
            due.land(tx, batch)

    def _judge(self, a: Asked, seen: Observation, body: bytes, now: datetime) -> Judged:
        roll = random.random()  # noqa: S311 - spreads retries, keeps no secret
        decision: Decision = decide(a.known, seen, now=now, roll=roll)
        if decision.to is State.FAILED and isinstance(seen, Problem) and self._recording.is_outage(a.credential_id):
            decision = decide(a.known, seen, now=now, roll=roll, outage=True)
        return Judged(a, seen, decision, body)
