"""Polling: claim what is due, ask many at once, decide, record in bulk.

`dispatch` claims and publishes batches; `ask` asks one batch. The network is never spoken to inside a transaction.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from threading import Event, Lock
from time import monotonic
from typing import NamedTuple
from uuid import UUID

from tracker import bell
from tracker.core import backoff, ids
from tracker.core.generation import State
from tracker.core.lifecycle import UNCHANGED, Decision, Known, decide, says_nothing_new
from tracker.core.observation import Observation, Problem, ProblemCode
from tracker.services.asking import Asking, Observed, Round
from tracker.services.crew import MOST_SLOW, patience
from tracker.services.learning import Learning
from tracker.services.recording import Judged, Recording
from tracker.store import batches, clocks, credentials, db, due, flights, switches
from tracker.store.batches import Asked, Bundle
from tracker.store.db import Database
from tracker.store.due import SHORTEST_CLAIM
from tracker.store.ready import Starts
from tracker.store.taking import Signs

log = logging.getLogger(__name__)

BATCH = 2000
"""Polls per claim and message, and up to `due.TOGETHER` times as many where one request asks about many. A message costs 6 ms of Celery
and two transactions whatever it carries: with half as many in each, a poll costs an eighth more (measured)."""
SHIFT = 0.9
"""Seconds for which a tick goes on dispatching: the next one comes after one second."""
PACE = 0.1
"""Seconds between two claims once nothing more is due: a quarter of what a budget may save up. What falls due in between is asked and ends
together: of 200 ends a second the latest webhooks came after 20 ms, and after 43 at twice as long (measured)."""
CROWDED = 0.1
"""Seconds until the next try while enough batches wait for a worker: what waits keeps one busy for twice as long at least."""
FEW = 100
"""Requests of an account that are counted one by one while a batch that was left to itself comes to its end."""


class UnderWay:
    """A batch that is being asked about: what it has left to answer, by identity, and how many requests the budgets count for it.

    By identity, since of what is done for each poll even the hash of a UUID is felt.
    """

    def __init__(self, asked: Sequence[Asked], paid: Mapping[int, int]) -> None:
        self.left = {id(a): a for a in asked}
        self.flying = dict(paid)

    def lightened(self) -> Counter[int]:
        """What is left, by account, where the budgets count so much more that they should hear of it; else nothing.

        Of many, half must be answered first: to tell costs a transaction, and slices come thirty a second.
        """
        left = Counter(a.credential_id for a in self.left.values())
        if any(left[c] < n and (left[c] <= FEW or left[c] <= n // 2) for c, n in self.flying.items()):
            self.flying = {c: min(n, left[c]) for c, n in self.flying.items() if left[c]}
            return left
        return Counter()


class Portion(NamedTuple):
    """What one claim gave. `wait` is how many seconds later the next one is worth while; None: not in this shift."""

    batch: UUID
    claimed: due.Claimed | None
    wait: float | None


class Polling:
    """`claiming` is the database tuned for `due`; `slots` is how many batches this installation works on at once."""

    def __init__(
        self,
        database: Database,
        bell_: bell.Bell,
        asking: Asking,
        learning: Learning,
        recording: Recording,
        *,
        claiming: Database,
        price: float,
        longest: float,
        slots: int,
    ) -> None:
        self._database, self._claiming = database, claiming
        self._bell, self._asking, self._recording = bell_, asking, recording
        self._learning = learning
        self._price, self._longest, self._slots = price, longest, slots
        self._clock_providers: dict[int, str] = {}
        self._pause = Event()
        self._one_at_a_time = Lock()
        self._under_way: dict[UUID, UnderWay] = {}
        self._signs = Signs()
        self._starts = Starts()

    def dispatch(self, stay: float = 0.0) -> int:
        """Claim everything that is due within the budgets and publish it; returns how many polls went out.

        Goes on for `stay` seconds, taking what falls due meanwhile in small portions of time: many at once are cheap. At most two
        batches per slot wait to be taken, so that a backlog waits in the database, in order, and not in the broker.
        """
        sent, ends = 0, monotonic() + stay
        self._bell.answered(bell.DISPATCH)
        while not self._bell.mute:
            if stay:
                # Said before each claim: who registers meanwhile sends no message, of which each costs more than many polls.
                self._bell.awake(bell.DISPATCH)
            portion = self._claim()
            if portion.claimed and not self._publish(portion.batch, portion.claimed):
                self._give_back(portion.batch, portion.claimed)
                break  # the broker is away: what is due waits in the database
            sent += portion.claimed.total if portion.claimed else 0
            if portion.wait is None or (portion.wait and monotonic() >= ends):
                break
            self._pause.wait(portion.wait)
        if stay and self._bell.asleep(bell.DISPATCH):
            self._bell.ring(bell.DISPATCH, bell.DEFAULT, because="rung at the end of a tick")
        return sent

    def _publish(self, batch: UUID, claimed: due.Claimed) -> bool:
        message = [str(batch), *claimed.polls]
        life = flights.UNREAD_LEASE.total_seconds()
        return self._bell.publish(bell.ASK, bell.POLL, message, shown=self._story(claimed.clocks), expires=life)

    def _claim(self) -> Portion:
        with self._database.looking() as tx:
            stopped, now = switches.is_stopped(tx, "polls")
            crowded = not stopped and flights.unread(tx, now) >= 2 * self._slots
        batch = ids.uuid7(now)
        if stopped or crowded:
            return Portion(batch, None, CROWDED if crowded else None)
        with self._claiming.transaction() as tx:
            claimed = due.claim(
                tx, batch=batch, now=now, limit=BATCH, longest=self._longest, most_slow=MOST_SLOW * self._slots,
                probe_waits=backoff.PAUSE_SCHEDULE, starts=self._starts,
            )  # fmt: skip
            if claimed:
                self._signs.sent(tx, now)
                if not claimed.clocks.keys() <= self._clock_providers.keys():
                    self._clock_providers = {learned.id: learned.provider for learned in clocks.everything(tx)}
        return Portion(batch, claimed, 0.0 if claimed and claimed.full else PACE)

    def _give_back(self, batch: UUID, claimed: due.Claimed) -> None:
        """Nobody will ask about these: they are due again at once."""
        with self._database.transaction() as tx:
            if flights.withdraw(tx, batch):
                due.release(tx, claimed.polls.pairs, db.now(tx))

    def _story(self, clock_counts: Mapping[int, int]) -> str:
        counted: Counter[str] = Counter()
        for clock_id, count in clock_counts.items():
            counted[self._clock_providers.get(clock_id, "?")] += count
        return ", ".join(f"{provider} x{count}" for provider, count in counted.most_common())

    def ask(self, batch: UUID, claims: Bundle) -> int:
        """Ask about claimed generations and record what is seen, in slices as answers arrive. Returns how many were asked.

        Threads may ask at the same time; they record one after the other.
        """
        with self._database.transaction() as tx:
            started, clock = db.now(tx), monotonic()
            paid = flights.launch(tx, batch, started)
            if not paid:
                return 0
            asked = batches.asked(tx, claims, self._longest)
            accounts = credentials.by_id(tx, sorted({a.credential_id for a in asked}))
            self._signs.taken(tx, started)
        # A probe: the account's deadlines move once it goes on, and until then this one must not be judged by the old ones.
        paused = {c.id: started - c.paused_at for c in accounts.values() if c.paused_at is not None}
        if paused:
            asked = [a.uncounted(paused[a.credential_id]) if a.credential_id in paused else a for a in asked]
        round_ = Round(
            accounts,
            lambda: started + timedelta(seconds=monotonic() - clock),
            paid,
            lambda wanted, flying: self._afford(batch, wanted, flying, round_.now()),
        )
        under_way, attended = UnderWay(asked, paid), patience(claims.polls)
        self._under_way[batch] = under_way
        again = SHORTEST_CLAIM  # until all went well: whatever went wrong must not go wrong again at once, and for ever
        try:
            with closing(self._asking.observe(asked, round_)) as slices:
                for slice_ in (part for whole in slices for part in _parts(whole)):
                    with self._one_at_a_time:
                        self._record(slice_, under_way.left, round_)
                        if monotonic() - clock > attended:
                            self._lighten(batch)
            again = 0.0
        finally:
            del self._under_way[batch]
            with self._one_at_a_time:
                self._land(batch, round_, under_way.left.values(), again)
        return len(asked)

    def _record(self, slice_: Sequence[Observed], left: dict[int, Asked], round_: Round) -> None:
        for observed in slice_:
            del left[id(observed[0])]
        now = round_.now()
        at = now.timestamp()
        self._recording.record([self._judge(*observed, now, at) for observed in slice_], now, round_.accounts)

    def _afford(
        self, batch: UUID, wanted: Mapping[int, int], flying: Mapping[int, int], now: datetime
    ) -> Mapping[int, int]:
        with self._database.transaction() as tx:
            granted = flights.afford(tx, batch, wanted, flying, now)
        self._under_way[batch].flying |= {key: flying[key] + asks for key, asks in granted.items()}
        return granted

    def make_room(self, batch: UUID) -> None:
        """Let the budgets know how much of a batch is answered, while its slowest members keep it from its end."""
        with self._one_at_a_time:
            self._lighten(batch)

    def _lighten(self, batch: UUID) -> None:
        # An account with nothing left in it must not look slow because of others, nor must what is answered take up anybody's room.
        under_way = self._under_way.get(batch)
        if under_way and (left := under_way.lightened()):
            with self._database.transaction() as tx:
                flights.partly_land(tx, batch, left)

    def _land(self, batch: UUID, round_: Round, left: Collection[Asked], again: float) -> None:
        """The batch is over: what was learned of accounts and clocks is kept, and what it has left is due `again` in so many seconds."""
        with self._learning.handing_over() as evidence, self._database.transaction() as tx:
            for credential_id, lasts in sorted(round_.without_batch.items()):
                credentials.no_batch(tx, credential_id, round_.now() + lasts)
                log.info("credential %s: no working batch path; asking singly", round_.accounts[credential_id].name)
            clocks.append(tx, evidence)
            due.release(tx, [(a.id, a.fence) for a in left], round_.now() + timedelta(seconds=again))
            flights.land(tx, batch)

    def _judge(self, a: Asked, seen: Observation, body: bytes, now: datetime, at: float) -> Judged:
        if at < a.timeout and says_nothing_new(
            seen, state=a.state, provider_status=a.provider_status, progress=a.progress, failures=a.failures
        ):
            return Judged(a, seen, UNCHANGED, body)
        known = a.known
        roll = random.random()  # noqa: S311 - spreads retries, keeps no secret
        decision: Decision = decide(known, seen, now=now, roll=roll)
        missing = isinstance(seen, Problem) and seen.code is ProblemCode.NOT_FOUND
        if missing and _counts(decision, known) and self._recording.is_outage(a.credential_id):
            decision = decide(known, seen, now=now, roll=roll, outage=True)
        return Judged(a, seen, UNCHANGED if decision == UNCHANGED and not a.failures else decision, body)


def _parts(slice_: Sequence[Observed]) -> list[Sequence[Observed]]:
    """What is recorded in one transaction each: answers about many may come all at once, and the first of them have waited long enough."""
    return [slice_[start : start + BATCH] for start in range(0, len(slice_), BATCH)]


def _counts(decision: Decision, known: Known) -> bool:
    """Whether more follows from a not-found than that it is asked again."""
    return decision.to is State.FAILED or decision.over or decision.answered_late != known.answered_late
