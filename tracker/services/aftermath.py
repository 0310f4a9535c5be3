"""What follows from attempts to deliver: their record, the next try, and what becomes of a receiver that fails again and again."""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from os import getpid
from uuid import UUID

from tracker import bell
from tracker.core import backoff, circuit, ids
from tracker.core.circuit import HEALTHY, Health, Outcome
from tracker.core.events import EventType
from tracker.couriers.webhook import Attempt
from tracker.services import steps
from tracker.store import db, deliveries, endpoints, outbox, sending
from tracker.store.db import Database, Transaction
from tracker.store.sending import Attempted, Outgoing

log = logging.getLogger(__name__)

GONE = 410
RETRIES = 2
"""The lane of retries: behind every first attempt."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A delivery that was tried, and how that ended."""

    outgoing: Outgoing
    attempt: Attempt


class Aftermath:
    """Records slices of attempts: one transaction for all of them, and one more for a receiver that is given up."""

    def __init__(self, database: Database, bell_: bell.Bell) -> None:
        self._database, self._bell = database, bell_
        self._worker = f"{socket.gethostname()}/{getpid()}"

    def record(self, sent: Sequence[Sent]) -> None:
        """Store what happened, unless somebody else's claim took over meanwhile."""
        if not sent:
            return
        sent = sorted(sent, key=lambda s: s.outgoing.id)
        with self._database.transaction() as tx:
            now = db.now(tx)
            sending.record(tx, [self._attempted(s, now) for s in sent])
            worn_out = self._judge_receivers(tx, sent, now)
        for s in sent:
            if not s.attempt.delivered:
                self._tell(s)
            if s.attempt.status_code == GONE:
                self._give_up(s.outgoing, "the receiver answered 410 Gone")
        for s, health in worn_out:
            self._give_up(s.outgoing, _worn_out(s, health), worn_out=True)

    def _attempted(self, s: Sent, now: datetime) -> Attempted:
        roll = random.random()  # noqa: S311 - spreads retries, keeps no secret
        o, attempt, tries = s.outgoing, s.attempt, s.outgoing.tries + 1
        pause = None
        if not attempt.delivered and attempt.status_code != GONE:
            pause = backoff.next_webhook_attempt(
                tries, roll, attempt.retry_after, o.schedule or backoff.WEBHOOK_SCHEDULE
            )
        return Attempted(
            delivery_id=o.id,
            fence=o.fence,
            number=o.attempts + 1,
            at=now - timedelta(milliseconds=attempt.duration_ms),
            duration_ms=attempt.duration_ms,
            status_code=attempt.status_code,
            error_class=attempt.error_class,
            response=attempt.response or attempt.detail,
            worker=self._worker,
            state="delivered" if attempt.delivered else "failed" if pause is None else "pending",
            lane=o.lane if attempt.delivered else RETRIES,
            tries=tries,
            due_at=None if pause is None else now + timedelta(seconds=pause),
        )

    @staticmethod
    def _judge_receivers(tx: Transaction, sent: Sequence[Sent], now: datetime) -> list[tuple[Sent, Health]]:
        """Write how receivers are where that changed, which successes of healthy ones do not; returns who is worn out."""
        telling = [s for s in sent if s.outgoing.troubled or not s.attempt.delivered]
        if not telling:
            return []
        before = sending.health(tx, [s.outgoing.receiver_id for s in telling])
        known, worn_out = dict(before), []
        for s in telling:
            health = known.get(s.outgoing.receiver_id)
            if health is None:
                continue  # it was deleted meanwhile
            outcome = Outcome(s.attempt.error_class, s.attempt.status_code, s.attempt.retry_after)
            health = circuit.after(health, outcome, now, random.random())  # noqa: S311 - as above
            if circuit.worn_out(health, now):
                worn_out.append((s, health))
                health = HEALTHY  # given up once, not by each of a slice; and an ad-hoc host gets another chance
            known[s.outgoing.receiver_id] = health
        sending.write_health(tx, {key: health for key, health in known.items() if health != before[key]})
        return worn_out

    def _give_up(self, o: Outgoing, reason: str, *, worn_out: bool = False) -> None:
        """The receiver wants no more, or is there no more. Of an ad-hoc URL, 410 ends only that generation's deliveries.

        In a transaction of its own, for it locks the endpoint before its deliveries, as everybody does.
        """
        with self._database.transaction() as tx:
            if o.endpoint_id is not None:
                disable(tx, o.project_id, o.endpoint_id, reason, db.now(tx))
            elif worn_out:
                deliveries.give_up(tx, receiver_id=o.receiver_id)
            else:
                deliveries.give_up(tx, generation_id=o.generation_id)
        self._bell.ring(bell.SEND, bell.WEBHOOK, because="a receiver was given up")

    @staticmethod
    def _tell(s: Sent) -> None:
        about = {"delivery": ids.public("dlv", s.outgoing.id)}
        if s.outgoing.generation_id is not None:
            about["generation"] = ids.public("gen", s.outgoing.generation_id)
        log.info(
            "webhook %s to %s: %s %s",
            s.outgoing.type,
            s.outgoing.url.partition("?")[0],
            s.attempt.error_class,
            s.attempt.status_code or "",
            extra=about,
        )


def _worn_out(s: Sent, health: Health) -> str:
    since = health.failing_since
    days = circuit.WORN_OUT.days
    last = f"status {s.attempt.status_code}" if s.attempt.status_code else str(s.attempt.error_class)
    return f"every attempt failed for {days} days, since {since:%Y-%m-%d %H:%M} UTC (the last one: {last})"


def disable(tx: Transaction, project_id: UUID, endpoint_id: UUID, reason: str, now: datetime) -> None:
    """Turn an endpoint off with its reason, end what waits for it, and tell the project's other endpoints."""
    if endpoints.disable(tx, endpoint_id, reason, now):
        deliveries.give_up(tx, endpoint_id=endpoint_id)
        fields = {"endpoint_id": ids.public("ep", endpoint_id), "reason": reason}
        outbox.publish(
            tx, [(steps.of_project(EventType.ENDPOINT_DISABLED, project_id, fields, now), None)], now, but=endpoint_id
        )
