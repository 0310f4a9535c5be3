"""Polling: claim what is due, ask many at once, decide, record in bulk.

`dispatch` claims and publishes batches; `ask` asks one batch. The network is never spoken to inside a transaction.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from time import monotonic
from uuid import UUID

from tracker import bell
from tracker.core import backoff, ids
from tracker.core.generation import State
from tracker.core.lifecycle import Decision, decide
from tracker.core.observation import Observation, Problem, ProblemCode
from tracker.core.urls import host_of
from tracker.errors import ConfigurationError
from tracker.net.fetch import Answer, Ask, Fetcher
from tracker.providers import REGISTRY
from tracker.providers.base import Account, Response, Subject
from tracker.services.recording import Judged, Recording
from tracker.store import clocks, credentials, db, due, switches
from tracker.store.credentials import Credential
from tracker.store.db import Database
from tracker.store.due import Asked
from tracker.store.vault import Vault

BATCH = 200
"""Polls per claim and message: one such batch in flight asks about 950 a second at 200 ms upstream latency (measured)."""
DEADLINE = 15.0
"""Seconds for one answer, everything included. Relays that take longer are asked again later."""
MESSAGE_LIFE = 30.0
"""Seconds after which an unread batch message is void: its polls are due again by then."""


class Polling:
    """`fetcher` belongs to this process. `slots` is how many batches this installation works on at once."""

    def __init__(
        self, database: Database, vault: Vault, bell_: bell.Bell, fetcher: Callable[[], Fetcher], recording: Recording, *,
        price: float, longest: float, slots: int,
    ) -> None:  # fmt: skip
        self._database, self._vault, self._bell, self._fetcher = database, vault, bell_, fetcher
        self._recording = recording
        self._price, self._longest, self._slots = price, longest, slots
        self._clock_providers: dict[int, str] = {}

    def dispatch(self) -> int:
        """Claim everything that is due within the budgets and publish it; returns how many polls went out.

        At most two batches per slot are outstanding, so that a backlog waits in the database, in order, and not in the broker.
        """
        self._bell.answered(bell.DISPATCH)
        sent = 0
        while claims := self._claim():
            batch, polls = claims
            if not polls:
                break
            sent += len(polls)
            message = [str(batch), [[str(c.generation_id), c.fence] for c in polls]]
            self._bell.publish(bell.ASK, bell.POLL, message, shown=self._story(polls), expires=MESSAGE_LIFE)
        return sent

    def _claim(self) -> tuple[UUID, list[due.Claim]] | None:
        with self._database.transaction() as tx:
            now = db.now(tx)
            if "polls" in switches.stopped(tx) or due.flying(tx, now) >= 2 * self._slots:
                return None
            batch = ids.uuid7(now)
            claims = due.claim(
                tx, batch=batch, now=now, limit=BATCH, longest=self._longest, probe_waits=backoff.PAUSE_SCHEDULE
            )
            if any(c.clock_id not in self._clock_providers for c in claims):
                self._clock_providers = {learned.id: learned.provider for learned in clocks.everything(tx)}
            return batch, claims

    def _story(self, claims: Sequence[due.Claim]) -> str:
        counted = Counter(self._clock_providers.get(c.clock_id, "?") for c in claims)
        return ", ".join(f"{provider} x{count}" for provider, count in counted.most_common())

    def ask(self, batch: UUID, claims: Sequence[tuple[UUID, int]]) -> int:
        """Ask about claimed generations and record what is seen, in slices as answers arrive. Returns how many were asked."""
        try:
            with self._database.transaction() as tx:
                started, clock = db.now(tx), monotonic()
                asked = due.asked(tx, claims, self._longest)
                accounts = credentials.by_id(tx, sorted({a.credential_id for a in asked}))
            for slice_ in self._observe(asked, accounts, started, clock):
                now = started + timedelta(seconds=monotonic() - clock)
                self._recording.record([self._judge(a, seen, body, now) for a, seen, body in slice_], now)
        finally:
            with self._database.transaction() as tx:
                due.land(tx, batch)
        return len(asked)

    def _observe(
        self, asked: Sequence[Asked], accounts: dict[int, Credential], started: datetime, clock: float
    ) -> Iterable[list[tuple[Asked, Observation, bytes]]]:
        asks: list[Ask] = []
        refused: list[tuple[Asked, Observation, bytes]] = []
        opened: dict[tuple[int, str], Account | Problem] = {}
        for a in asked:
            key = (a.credential_id, a.provider)
            if key not in opened:
                opened[key] = self._open(accounts[a.credential_id], a.provider)
            account = opened[key]
            if isinstance(account, Problem):
                refused.append((a, account, b""))
                continue
            asks.append(self._question(a, account))
        if refused:
            yield refused
        for answers in self._fetcher().fetch(asks, at_once=BATCH):
            at = started + timedelta(seconds=monotonic() - clock)
            yield [self._read(answer, at) for answer in answers]

    @staticmethod
    def _question(a: Asked, account: Account) -> Ask:
        question = REGISTRY[a.provider].question(account, Subject(a.task_id, a.kind))
        return Ask(
            key=a, method=question.method, url=question.url, headers=question.headers, body=question.body, deadline=DEADLINE,
            host_allowed=host_of(account.base_url), group=str(a.credential_id),
        )  # fmt: skip

    def _open(self, credential: Credential, provider: str) -> Account | Problem:
        try:
            key = None if credential.api_key is None else self._vault.decrypt(credential.api_key)
        except ConfigurationError as wrong:
            return Problem(ProblemCode.UNDECRYPTABLE, str(wrong))
        return Account(credential.base_url or REGISTRY[provider].default_base_url, key)

    @staticmethod
    def _read(answer: Answer, at: datetime) -> tuple[Asked, Observation, bytes]:
        a: Asked = answer.ask.key
        response = Response(answer.status, answer.headers, answer.body, at, answer.failure, answer.detail)
        return a, REGISTRY[a.provider].read(Subject(a.task_id, a.kind), response), answer.body

    def _judge(self, a: Asked, seen: Observation, body: bytes, now: datetime) -> Judged:
        roll = random.random()  # noqa: S311 - spreads retries, keeps no secret
        decision: Decision = decide(a.known, seen, now=now, roll=roll)
        if decision.to is State.FAILED and isinstance(seen, Problem) and self._recording.is_outage(a.credential_id):
            decision = decide(a.known, seen, now=now, roll=roll, outage=True)
        return Judged(a, seen, decision, body)
