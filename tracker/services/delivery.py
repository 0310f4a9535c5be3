"""Sending webhooks: claim, sign, send, record. Nobody waits for somebody else's slow endpoint.

One thread per process does it all and has no batch barrier: what ends is recorded within milliseconds, and the room it leaves is claimed
again. The tasks only wake it, so that a worker is free for the next ring while slow receivers take their time.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from functools import lru_cache
from time import monotonic

from tracker import __version__, bell
from tracker.core import ids, signing
from tracker.couriers import webhook
from tracker.couriers.webhook import Attempt
from tracker.errors import ConfigurationError
from tracker.net.post import Post, Poster
from tracker.services.aftermath import RETRIES, Aftermath, Sent
from tracker.store import db, sending
from tracker.store.db import Database
from tracker.store.sending import LEASE, Outgoing
from tracker.store.vault import Vault

log = logging.getLogger(__name__)

DEADLINE = 20.0
"""Seconds for one attempt, everything included: Standard Webhooks advises 15 to 30."""
CLAIM = 100
"""Deliveries per claim: one round trip, and about 10 ms of sending."""
AT_ONCE, LATE_AT_ONCE = 400, 200
"""In flight per process, and how many of them may be retries."""
CROWDS = ((0.5, 1), (0.75, 2), (1.0, 4))
"""Up to which fullness of a process each receiver's cap in flight is divided by what. A process that is full of receivers which hang
is one that nobody else gets into: it takes 200 of them, at 4, then 2, then 1 each, and by then their circuits are open."""
SLICE = 0.01
"""Seconds in which landings are gathered for one record: a record for each costs more than the sending."""
LOOK = 0.003
"""Seconds between two looks for rings while awake. A look at Redis costs a hundredth of a message through Celery."""
AWAKE = 0.5
"""Seconds without work after which a process falls asleep, and rings send messages again."""
RESTING = 60.0
"""Seconds without a claim while nothing happens; work that is due rings."""
JOIN_EVERY = 0.25
"""Seconds between two calls for help while more is due than one claim takes."""
PATIENCE = 40.0
"""Seconds for which `send_due` waits for the last answer: the deadline, and the record after it."""
STUMBLE = 0.5
"""Seconds of rest after an error, which is most often a database that is away."""


class Delivery:
    """`database` is the one tuned for `sending`.

    `poster` makes this process's poster; it and the thread that owns it begin with the first `send_due`, behind any fork.
    """

    def __init__(
        self, database: Database, vault: Vault, bell_: bell.Bell, poster: Callable[[], Poster], aftermath: Aftermath
    ) -> None:
        self._database, self._bell, self._aftermath = database, bell_, aftermath
        self._decrypted = lru_cache(maxsize=1024)(vault.decrypt)  # the same few for every delivery
        self._make_poster = poster
        self._poster: Poster | None = None
        self._thread: threading.Thread | None = None
        self._state = threading.Condition()
        self._rung = self._idle = self._closing = self._awake = False
        self._made = self._late = 0
        self._hungry = self._more = False
        self._look_at = self._sleep_at = self._claim_at = self._called_at = self._slice_ends = self._first_landed = 0.0
        self._landed: list[Sent] = []

    def send_due(self, patience: float = PATIENCE) -> int:
        """Send what is due; returns how many attempts ended meanwhile, when nothing is left or in flight, or `patience` seconds passed."""
        with self._state:
            if self._closing:
                return 0
            before, self._rung = self._made, True
            poster = self._started()
            poster.wake()
            self._state.wait_for(lambda: self._idle and not self._rung, patience)
            return self._made - before

    def _started(self) -> Poster:
        poster = self._poster = self._poster or self._make_poster()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(poster,), name="webhooks", daemon=True)
            self._thread.start()
        return poster

    def close(self, patience: float = PATIENCE) -> None:
        """Claim no more, wait for what is being sent, and record it. After `patience` seconds the rest is left to its lease."""
        with self._state:
            self._closing = True
            if self._poster is not None:
                self._poster.wake()
        if self._thread is not None:
            self._thread.join(patience)
            if self._poster is not None and not self._thread.is_alive():
                self._poster.close()

    def _run(self, poster: Poster) -> None:
        while not (self._closing and not poster.flying and not self._landed):
            try:
                self._turn(poster)
            except Exception as wrong:
                away = db.unreachable(wrong)
                log.warning(
                    "%s; what was answered is kept until it can be recorded",
                    "the database is away" if away else "webhooks stumbled",
                    exc_info=None if away else wrong,
                )
                self._hungry, self._slice_ends = True, monotonic() + STUMBLE
                self._gather(poster, STUMBLE)
        if self._awake and self._bell.asleep(bell.SEND):
            self._bell.ring(bell.SEND, bell.WEBHOOK, because="left to others")

    def _turn(self, poster: Poster) -> None:
        now = monotonic()
        if self._awake and now >= self._look_at:
            self._listen(now)
        if not self._closing and (self._hungry or now >= self._claim_at) and poster.flying < AT_ONCE:
            self._claim(poster)
        self._look_around(poster)
        self._gather(poster, self._wait(poster))
        if self._landed and (not poster.flying or monotonic() >= self._slice_ends):
            self._record()

    def _gather(self, poster: Poster, wait: float) -> None:
        landed = poster.landed(wait)
        if landed and not self._landed:
            self._slice_ends = self._first_landed = monotonic()
            self._slice_ends += SLICE
        self._landed += [Sent(posted.post.key, webhook.attempt(posted)) for posted in landed]
        self._late -= sum(posted.post.key.lane >= RETRIES for posted in landed)

    def _wait(self, poster: Poster) -> float:
        if self._rung or (self._hungry and poster.flying < AT_ONCE):
            return 0.0
        until = min(self._claim_at, self._slice_ends) if self._landed else self._claim_at
        until = min(until, self._look_at) if self._awake else until
        return min(1.0 if self._closing else RESTING, max(0.0, until - monotonic()))

    def _listen(self, now: float) -> None:
        """Take what was rung since the last look without a message; fall asleep when nothing came for a while."""
        self._look_at = now + LOOK
        drowsy = now >= self._sleep_at
        if self._bell.asleep(bell.SEND) if drowsy else self._bell.awake(bell.SEND):
            self._hungry, self._sleep_at = True, now + AWAKE
        elif drowsy:
            self._awake = False

    def _look_around(self, poster: Poster) -> None:
        """With nothing more to claim, answer the bell, or tell those who wait that there is nothing left. Before any sleep."""
        with self._state:
            rung = self._rung and not self._hungry
            self._idle = not (self._rung or self._hungry or self._landed or poster.flying)
            if rung:
                self._rung, self._hungry = False, True
            if self._idle:
                self._state.notify_all()
        if rung:
            # Said before the claim: work that is made from now on is seen at the next look. While there is plenty to do nobody needs to.
            self._bell.awake(bell.SEND)
            self._awake, self._look_at, self._sleep_at = True, monotonic() + LOOK, monotonic() + AWAKE

    def _claim(self, poster: Poster) -> None:
        limit, crowd = _room(poster.flying)
        with self._database.transaction() as tx:
            claimed = sending.claim(tx, limit=limit, late=LATE_AT_ONCE - self._late, crowd=crowd)
        self._hungry, self._more = len(claimed.outgoing) == limit, claimed.more
        self._claim_at = monotonic() + (RESTING if claimed.again is None else claimed.again)
        at = int(claimed.at.timestamp()) if claimed.at else 0
        posts = [post for o in claimed.outgoing if (post := self._signed(o, at))]
        self._late += sum(post.key.lane >= RETRIES for post in posts)
        poster.launch(posts)
        if self._hungry and monotonic() >= self._called_at + JOIN_EVERY:
            # There is more than we took: another process may join.
            self._called_at = monotonic()
            self._bell.publish(bell.SEND, bell.WEBHOOK, [], shown="more is due", expires=1.0)

    def _signed(self, o: Outgoing, at: int) -> Post | None:
        try:
            own = json.loads(self._decrypted(o.headers)) if o.headers else {}
            secrets = [self._decrypted(secret) for secret in o.secrets]
        except ConfigurationError as wrong:
            # One endpoint's unreadable secret is that endpoint's failed attempt, and nobody else's.
            self._landed.append(Sent(o, Attempt(0, None, "protocol", "", None, str(wrong))))
            return None
        headers = signing.headers(secrets, ids.public("evt", o.event_id), at, o.body)
        headers |= {"User-Agent": f"generation-tracker/{__version__}"}
        return webhook.post(
            o, url=o.url, body=o.body, headers={**own, **headers}, deadline=DEADLINE, ca=o.ca, owner=o.project_id
        )

    def _record(self) -> None:
        """What cannot be recorded now stays, until its lease has lapsed and it will be sent again anyway."""
        try:
            self._aftermath.record(self._landed)
        except Exception:
            if monotonic() < self._first_landed + LEASE.total_seconds():
                raise
            log.exception("%d attempts could not be recorded; they will be made again", len(self._landed))
        with self._state:
            self._made += len(self._landed)
        self._landed = []
        self._hungry = self._hungry or self._more


def _room(flying: int) -> tuple[int, int]:
    """How many may be claimed while so many are in flight, and by what each receiver's cap is divided: never past a step at once."""
    steps = ((int(AT_ONCE * fullness), crowd) for fullness, crowd in CROWDS)
    room, crowd = next(((bound - flying, crowd) for bound, crowd in steps if flying < bound), (0, 1))
    return min(CLAIM, room), crowd
