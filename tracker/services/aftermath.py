"""What follows from attempts to deliver: their record, the next try, and what becomes of a receiver that fails again and again."""

from __future__ import annotations

import logging
import random
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from os import getpid
from time import monotonic
from uuid import UUID

from tracker import bell
from tracker.core import backoff, circuit, ids
from tracker.core.circuit import HEALTHY, Health, Outcome
from tracker.core.events import EventType
from tracker.core.urls import origin_of
from tracker.couriers.webhook import Attempt
from tracker.services import steps
from tracker.store import db, deliveries, endpoints, outbox, replay, sending
from tracker.store.db import Database, Transaction
from tracker.store.sending import Attempted, Outgoing

log = logging.getLogger(__name__)

GONE = 410
DAY = 24
"""Hours."""
RETRIES = 2
"""The lane of retries: behind every first attempt."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A delivery that was tried, and how that ended."""

    outgoing: Outgoing
    attempt: Attempt
    landed: float = field(default_factory=monotonic)


class Aftermath:
    """Records slices of attempts: one statement for all, a transaction for how receivers are where that changed, one for each given up.

    Should one of these not come about, the next failure of its receiver leads there again.

    `sending_` is the database tuned for `sending`. `disable_after`: an endpoint is disabled when every attempt failed for so long.
    """

    def __init__(self, database: Database, sending_: Database, bell_: bell.Bell, *, disable_after: timedelta) -> None:
        self._database, self._sending, self._bell, self._disable_after = database, sending_, bell_, disable_after
        self._worker = f"{socket.gethostname()}/{getpid()}"

    def record(self, sent: Sequence[Sent]) -> None:
        """Store what happened, unless somebody else's claim took over meanwhile."""
        if not sent:
            return
        with self._sending.looking() as tx:
            troubled = sending.record(tx, [self._attempted(s) for s in sent])
        worn_out = self._judge_receivers(sent, troubled)
        for s in sent:
            if not s.attempt.delivered:
                self._tell(s)
            if s.attempt.status_code == GONE:
                self._gone(s.outgoing)
        for s in worn_out:
            self._worn_out(s)

    def _attempted(self, s: Sent) -> Attempted:
        roll = random.random()  # noqa: S311 - spreads retries, keeps no secret
        o, attempt, tries = s.outgoing, s.attempt, s.outgoing.tries + 1
        pause = None
        if not attempt.delivered and attempt.status_code != GONE:
            pause = backoff.next_webhook_attempt(
                tries, roll, attempt.retry_after, o.schedule or backoff.WEBHOOK_SCHEDULE
            )
        return Attempted(
            delivery_id=o.id,
            receiver_id=o.receiver_id,
            url=o.url,
            fence=o.fence,
            number=o.attempts + 1,
            ago=attempt.duration_ms / 1000 + monotonic() - s.landed,
            duration_ms=attempt.duration_ms,
            status_code=attempt.status_code,
            error_class=attempt.error_class,
            response=attempt.response or attempt.detail,
            worker=self._worker,
            state="delivered" if attempt.delivered else "failed" if pause is None else "pending",
            lane=o.lane if attempt.delivered else RETRIES,
            tries=tries,
            pause=pause,
        )

    def _judge_receivers(self, sent: Sequence[Sent], troubled: set[int]) -> list[Sent]:
        """Write how receivers are where that changed, which successes of healthy ones do not; returns the failures of the worn out."""
        failed = {s.outgoing.receiver_id: s for s in sent if not s.attempt.delivered}
        concerned = troubled | failed.keys()
        if not concerned:
            return []
        with self._database.transaction() as tx:
            now = db.now(tx)
            before = sending.health(tx, concerned)
            known = dict(before)
            for s in sent:  # in the order in which they landed
                health = known.get(s.outgoing.receiver_id)
                if health is not None:  # it is none of those, or was deleted meanwhile
                    outcome = Outcome(s.attempt.error_class, s.attempt.status_code, s.attempt.retry_after)
                    known[s.outgoing.receiver_id] = circuit.after(health, outcome, now, random.random())  # noqa: S311 - as above
            sending.write_health(tx, {key: health for key, health in known.items() if health != before[key]})
        return [s for key, s in failed.items() if key in known and self._is_worn_out(s, known[key], now)]

    def _is_worn_out(self, s: Sent, health: Health, now: datetime) -> bool:
        return circuit.worn_out(health, now, circuit.patience(self._disable_after, s.outgoing.schedule))

    def _gone(self, o: Outgoing) -> None:
        """The receiver wants no more. Of an ad-hoc URL, that ends only this generation's deliveries."""
        with self._database.transaction() as tx:
            if o.endpoint_id is not None:
                disable(tx, o.project_id, o.endpoint_id, "the receiver answered 410 Gone", db.now(tx))
            elif o.generation_id is not None:
                deliveries.give_up_generation(tx, o.generation_id, db.now(tx))
        self._bell.ring(bell.SEND, bell.WEBHOOK, because="a receiver wants no more")

    def _worn_out(self, s: Sent) -> None:
        """The receiver is there no more. An ad-hoc host gets another chance once what waited for it was ended.

        In a transaction of its own, for it locks the endpoint before its receiver, as everybody does. How long the receiver has
        failed is forgotten only here: should this not come to its end, the next failure brings us here again.
        """
        o = s.outgoing
        with self._database.transaction() as tx:
            now = db.now(tx)
            if o.endpoint_id is not None:
                endpoints.get(tx, o.project_id, o.endpoint_id, lock=True)
            health = sending.health(tx, [o.receiver_id]).get(o.receiver_id)
            if health is None or not self._is_worn_out(s, health, now):
                return  # deleted, answered or given up meanwhile
            if o.endpoint_id is not None:
                disable(tx, o.project_id, o.endpoint_id, _failures(s, health, now), now)
            else:
                sending.give_up(tx, o.receiver_id, now)
            sending.write_health(tx, {o.receiver_id: HEALTHY})
        self._bell.ring(bell.SEND, bell.WEBHOOK, because="a receiver was given up")

    @staticmethod
    def _tell(s: Sent) -> None:
        about = {"delivery": ids.public("dlv", s.outgoing.id)}
        if s.outgoing.generation_id is not None:
            about["generation"] = ids.public("gen", s.outgoing.generation_id)
        log.info(
            "webhook %s to %s: %s %s",
            s.outgoing.type,
            origin_of(s.outgoing.url),
            s.attempt.error_class,
            s.attempt.status_code or "",
            extra=about,
        )


def _failures(s: Sent, health: Health, now: datetime) -> str:
    since = health.failing_since or now
    hours = int((now - since).total_seconds() // 3600)
    long = f"{hours // DAY} days" if hours >= 2 * DAY else f"{hours} hours"
    last = f"status {s.attempt.status_code}" if s.attempt.status_code else str(s.attempt.error_class)
    return f"every attempt failed for {long}, since {since:%Y-%m-%d %H:%M} UTC (the last one: {last})"


def disable(tx: Transaction, project_id: UUID, endpoint_id: UUID, reason: str, now: datetime) -> None:
    """Turn an endpoint off with its reason, and tell the project's other endpoints. Upkeep ends what waits for it."""
    if endpoints.disable(tx, endpoint_id, reason, now):
        replay.end(tx, endpoint_id)
        fields = {"endpoint_id": ids.public("ep", endpoint_id), "reason": reason}
        outbox.publish(
            tx, [(steps.of_project(EventType.ENDPOINT_DISABLED, project_id, fields, now), None)], now, but=endpoint_id
        )
