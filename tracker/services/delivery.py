"""Sending webhooks: claim, sign, send, decide, record. Nobody waits for somebody else's slow endpoint.

There is no batch barrier: each delivery is recorded as it ends, and the room it leaves is claimed again at once.
"""

from __future__ import annotations

import json
import logging
import random
import socket
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

from tracker import __version__, bell
from tracker.core import backoff, ids, signing
from tracker.core.events import EventType
from tracker.couriers import webhook
from tracker.couriers.webhook import Attempt
from tracker.errors import ConfigurationError
from tracker.net.guard import GuardedSession
from tracker.services import steps
from tracker.store import db, deliveries, endpoints, outbox, switches
from tracker.store.db import Database, Transaction
from tracker.store.deliveries import Attempted, Outgoing
from tracker.store.vault import Vault

log = logging.getLogger(__name__)

DEADLINE = 20.0
"""Seconds for one attempt, everything included: Standard Webhooks advises 15 to 30."""
CLAIM = 25
"""Deliveries per claim: a burst is split over the processes there are (measured: finer costs, coarser waits)."""
AT_ONCE = 64
"""Sending threads per process: with 4 in flight per endpoint, 16 hanging endpoints fill one process."""
SHIFT = 30.0
"""Seconds that one task goes on claiming; then it rings for a successor, well before Celery's time limit."""
LOOK_AROUND = 0.05
"""Seconds between two claims while all that flies hangs: what a slow receiver may cost the others."""
GONE = 410


@dataclass(frozen=True, slots=True)
class _Sent:
    outgoing: Outgoing
    attempt: Attempt


class Delivery:
    """`session` makes this process's guarded session, once."""

    def __init__(
        self, database: Database, vault: Vault, bell_: bell.Bell, session: Callable[[], GuardedSession]
    ) -> None:
        self._database, self._vault, self._bell, self._session = database, vault, bell_, session
        self._threads: ThreadPoolExecutor | None = None
        self._worker = socket.gethostname()

    def send_due(self) -> int:
        """Send what is due until nothing is, or the shift is over; returns how many attempts were made."""
        self._bell.answered(bell.SEND)
        threads = self._threads = self._threads or ThreadPoolExecutor(AT_ONCE, "webhook")
        flying: set[Future[_Sent]] = set()
        ends, made = monotonic() + SHIFT, 0
        while True:
            claimed = self._claim(min(CLAIM, AT_ONCE - len(flying))) if monotonic() < ends else []
            if len(claimed) == CLAIM:
                # There is more than we took: another process may join.
                self._bell.ring(bell.SEND, bell.WEBHOOK, because="more is due")
            flying |= {threads.submit(self._send, *ready) for ready in claimed}
            if not flying:
                break
            done, flying = wait(flying, timeout=LOOK_AROUND, return_when=FIRST_COMPLETED)
            made += len(done)
            self._record([future.result() for future in done])
        if monotonic() >= ends:
            self._bell.ring(bell.SEND, bell.WEBHOOK, because="the shift ended")
        return made

    def _claim(self, limit: int) -> list[tuple[Outgoing, list[bytes], datetime]]:
        if limit <= 0:
            return []
        with self._database.transaction() as tx:
            now = db.now(tx)
            if "webhooks" in switches.stopped(tx):
                return []
            claimed = deliveries.claim(tx, now=now, limit=limit)
            keys = {(o.project_id, o.endpoint_id) for o in claimed}
            stored = {key: endpoints.secrets(tx, *key, now) for key in keys}
        return [(o, stored[o.project_id, o.endpoint_id], now) for o in claimed]

    def _send(self, o: Outgoing, secrets: list[bytes], now: datetime) -> _Sent:
        try:
            headers = self._headers(o, secrets, now)
        except ConfigurationError as wrong:
            # One endpoint's unreadable secret is that endpoint's failed attempt, and nobody else's.
            return _Sent(o, Attempt(0, None, "protocol", "", None, str(wrong)))
        return _Sent(
            o, webhook.send(self._session(), url=o.url, body=o.body, headers=headers, deadline=DEADLINE, ca=o.ca)
        )

    def _headers(self, o: Outgoing, secrets: list[bytes], now: datetime) -> dict[str, str]:
        own = json.loads(self._vault.decrypt(o.headers)) if o.headers else {}
        plain = [self._vault.decrypt(secret) for secret in secrets]
        return {
            **own,
            **signing.headers(plain, ids.public("evt", o.event_id), int(now.timestamp()), o.body),
            "User-Agent": f"generation-tracker/{__version__}",
        }

    def _record(self, sent: list[_Sent]) -> None:
        if not sent:
            return
        with self._database.transaction() as tx:
            now = db.now(tx)
            deliveries.record(tx, [self._decided(s, now) for s in sent])
        for s in sent:
            if s.attempt.status_code == GONE:
                self._receiver_gone(s.outgoing)
            if not s.attempt.delivered:
                log.info(
                    "webhook %s to %s: %s",
                    s.outgoing.type,
                    s.outgoing.url.partition("?")[0],
                    s.attempt.error_class,
                    extra={"delivery": ids.public("dlv", s.outgoing.id)},
                )

    def _decided(self, s: _Sent, now: datetime) -> Attempted:
        roll = random.random()  # noqa: S311 - spreads retries, keeps no secret
        o, attempt, number = s.outgoing, s.attempt, s.outgoing.attempts + 1
        pause = None
        if not attempt.delivered and attempt.status_code != GONE:
            pause = backoff.next_webhook_attempt(
                number, roll, attempt.retry_after, o.schedule or backoff.WEBHOOK_SCHEDULE
            )
        return Attempted(
            delivery_id=o.id,
            fence=o.fence,
            number=number,
            at=now - timedelta(milliseconds=attempt.duration_ms),
            duration_ms=attempt.duration_ms,
            status_code=attempt.status_code,
            error_class=attempt.error_class,
            response=attempt.response or attempt.detail[:500].replace("\0", ""),
            worker=self._worker,
            state="delivered" if attempt.delivered else "failed" if pause is None else "pending",
            due_at=None if pause is None else now + timedelta(seconds=pause),
        )

    def _receiver_gone(self, o: Outgoing) -> None:
        """410: the receiver wants no more. An endpoint is disabled; an ad-hoc URL ends only that generation's deliveries.

        In a transaction of its own, for it locks the endpoint before its deliveries, as everybody does.
        """
        with self._database.transaction() as tx:
            if o.endpoint_id is None:
                deliveries.give_up(tx, generation_id=o.generation_id)
            else:
                disable(tx, o.project_id, o.endpoint_id, "the receiver answered 410 Gone", db.now(tx))

    def close(self) -> None:
        """Wait for what is being sent."""
        if self._threads is not None:
            self._threads.shutdown(wait=True)


def disable(tx: Transaction, project_id: UUID, endpoint_id: UUID, reason: str, now: datetime) -> None:
    """Turn an endpoint off with its reason, end what waits for it, and tell the project's other endpoints."""
    if endpoints.disable(tx, endpoint_id, reason, now):
        deliveries.give_up(tx, endpoint_id=endpoint_id)
        fields = {"endpoint_id": ids.public("ep", endpoint_id), "reason": reason}
        outbox.publish(
            tx, [(steps.of_project(EventType.ENDPOINT_DISABLED, project_id, fields, now), None)], now, but=endpoint_id
        )
