"""Keeping durable copies: claim what is due, fetch it, store it whole under its final name, record. Provider links die within hours.

A worker may die at any byte: what a partial file is a part of stands in the database before its first byte is written.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import random
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import timedelta
from pathlib import Path
from threading import Event
from time import monotonic

from tracker import bell
from tracker.core import backoff, ids
from tracker.couriers.download import DownloadError, Fetched, Limits, Partial, download, pass_through
from tracker.couriers.store import ArtifactStore, StorageError
from tracker.net.guard import GuardedSession
from tracker.services.job import ClaimLostError, Error, Job, Outcome, StoppedError
from tracker.services.links import BusyError, Links
from tracker.services.priority import DOWNLOADS, give_way
from tracker.services.storing import Copies
from tracker.store import artifacts, db, keeping, switches
from tracker.store.artifacts import Wanted
from tracker.store.db import Database, Transaction

log = logging.getLogger(__name__)

LET_GO = 5.0
"""Seconds after the order to stop in which a download may end by itself; one that hangs is given back without its thread."""
AT_ONCE = 4
"""Downloads under way in one process: hashing, reading and writing leave the interpreter's lock, so threads are enough."""
SHIFT = 900.0
"""Seconds that one task goes on claiming; then it rings for a successor and ends with its last download."""
LOOK_AROUND = 1.0
"""Seconds between two looks for more work, and for lost claims, while something is under way."""
RENEW_EVERY = 2.0
"""Seconds between two signs of life in the database: the lease is 45 s, and people watch the progress."""
LONGEST_UPLOAD = 3600.0
"""Seconds after the deadline of the download during which a claim is still renewed, for the way into the store."""
ATTEMPTS = 12
"""Tries in a row without progress: with waits doubling from 5 s to an hour they span about half a day."""
FEWER = {"too_large": 1, "wrong_media": 6, "address": 4, "redirect": 4}
"""Tries of what another try will hardly mend. An error page may go away, so it gets some."""
LONGEST_WAIT = 3600.0
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
BUSY_WAIT = timedelta(seconds=2)
NO_ROOM_WAIT = timedelta(minutes=1)
"""For a file that does not fit while smaller ones do: no attempt is counted, because nothing was tried."""


class Downloading:
    """`session` and `store` belong to this process; `at_once` bounds its threads."""

    def __init__(
        self, database: Database, bell_: bell.Bell, *, session: Callable[[], GuardedSession], links: Links, store: ArtifactStore,
        copies: Copies, limits: Limits | None = None, at_once: int = AT_ONCE,
    ) -> None:  # fmt: skip
        self._database, self._bell, self._session = database, bell_, session
        self._links, self._store, self._copies = links, store, copies
        self._limits, self._at_once = limits or Limits(), at_once
        self._threads: ThreadPoolExecutor | None = None
        self._ending, self._ends_at = Event(), float("inf")

    def stop(self) -> None:
        """Claim no more, and give back what is under way, to be gone on with from where it is: this process ends."""
        self._ends_at = min(self._ends_at, monotonic() + LET_GO)
        self._ending.set()

    def fetch_due(self, shift: float = SHIFT) -> int:
        """Fetch what is due until nothing is, or the shift is over; returns how many tries were made."""
        self._bell.answered(bell.FETCH)
        threads = self._threads = self._threads or ThreadPoolExecutor(self._at_once, "download", give_way, (DOWNLOADS,))
        flying: dict[Future[None], Job] = {}
        ends, made, renewed = monotonic() + shift, 0, monotonic()
        while True:
            free = self._at_once - len(flying)
            claimed = self._claim(free) if free and monotonic() < ends and not self._ending.is_set() else []
            if claimed and len(claimed) == free:
                # There may be more than we took: another process may join.
                self._bell.ring(bell.FETCH, bell.DOWNLOAD, because="more is due")
            flying |= {
                threads.submit(self._fetch, job): job for job in (Job(wanted, self._ending) for wanted in claimed)
            }
            if not flying or self._let_go(flying.values()):
                break
            ended, _ = wait(flying, timeout=LOOK_AROUND, return_when=FIRST_COMPLETED)
            made += len(ended)
            for future in ended:
                del flying[future]
                future.result()
            if monotonic() - renewed >= RENEW_EVERY:
                self._renew(list(flying.values()))
                renewed = monotonic()
        if monotonic() >= ends:
            self._bell.ring(bell.FETCH, bell.DOWNLOAD, because="the shift ended")
        return made

    def _let_go(self, jobs: Collection[Job]) -> bool:
        """Give back what did not end in time after the order to stop. Its thread ends with the process, and can record nothing any more."""
        if monotonic() < self._ends_at:
            return False
        for job in jobs:
            log.warning("%s hangs and is left to another worker", job.wanted.name, extra=_about(job.wanted))
            self._later(job, BUSY_WAIT)
        return True

    def _claim(self, limit: int) -> list[Wanted]:
        with self._database.transaction() as tx:
            now = db.now(tx)
            if "downloads" in switches.stopped(tx):
                needed = switches.needed(tx, "downloads")
                if needed is None or self._store.spool.free() < needed:
                    return []
                switches.resume(tx, "downloads")
                log.warning("there is room again: downloads go on")
            return artifacts.claim(tx, now=now, limit=limit)

    def _renew(self, jobs: list[Job]) -> None:
        """Keep the leases, and show how far each is."""
        now = monotonic()
        alive = [job for job in jobs if now - job.began < self._limits.deadline + LONGEST_UPLOAD]
        if not alive:
            return
        with self._database.transaction() as tx:
            at = db.now(tx)
            for job in sorted(alive, key=lambda job: (job.wanted.generation_id, job.wanted.kind, job.wanted.index)):
                since, before = job.shown
                speed = max(job.done - before, 0) / max(now - since, 1e-3)
                job.shown = (now, job.done)
                job.lost = not artifacts.renew(tx, job.wanted, now=at, bytes_done=job.done, bytes_per_second=speed)

    def _fetch(self, job: Job) -> None:
        wanted = job.wanted
        try:
            with self._place(wanted) as (name, into):
                try:
                    self._carry(job, name, into)
                finally:
                    if into.is_file() and not into.stat().st_size:
                        into.unlink()
        except ClaimLostError:
            log.info("%s is fetched by another worker now", wanted.name, extra=_about(wanted))
        except StoppedError:
            self._later(job, timedelta(0))
        except BusyError:
            self._later(job, BUSY_WAIT)
        except DownloadError as wrong:
            self._failed(job, wrong.code, str(wrong), wrong.partial)
        except StorageError as wrong:
            # On the way straight through: nothing is left to go on from.
            self._failed(job, "storage", str(wrong), None)
        except Exception as wrong:
            # Of our own making; the others in this process go on.
            log.exception("%s could not be kept", wanted.name, extra=_about(wanted))
            self._failed(job, "internal", type(wrong).__name__, None)

    @contextlib.contextmanager
    def _place(self, wanted: Wanted) -> Iterator[tuple[str, Path]]:
        """The partial file to go on from, or a new one where it is written by somebody else or was never begun."""
        new = f".{ids.public('gen', wanted.generation_id)}-{wanted.name}.{wanted.fence}.part"
        with contextlib.ExitStack() as stack:
            for name in (wanted.partial or new, new):
                into = stack.enter_context(self._store.spool.held(name))
                if into is not None:
                    yield name, into
                    return
            raise ClaimLostError

    def _carry(self, job: Job, name: str, into: Path) -> None:
        """Fetch and store, asking once for a fresh link where the stored one has ended."""
        wanted, url = job.wanted, self._links.ready(job.wanted)
        resume = Partial(into, wanted.etag, wanted.size) if wanted.partial == name and wanted.etag else None
        job.resumed = job.done = resume.size if resume else 0
        try:
            self._attempt(job, url, name, into, resume)
        except DownloadError as wrong:
            fresh = self._links.fresh(wanted, url) if wrong.code == "expired_link" else None
            if fresh is None:
                raise
            self._attempt(job, fresh, name, into, wrong.partial)

    def _attempt(self, job: Job, url: str, name: str, into: Path, resume: Partial | None) -> None:
        wanted, headers = job.wanted, self._links.headers(job.wanted, url)

        def begun(partial: Partial | None) -> None:
            etag, size = (partial.etag, partial.total) if partial else (None, None)
            with self._database.transaction() as tx:
                if not artifacts.begun(tx, wanted, partial=name if partial else None, etag=etag, size=size):
                    raise ClaimLostError
                if size is not None:
                    _take_room(tx, wanted, size)

        try:
            fetched = download(
                self._session(), url, into, resume=resume, headers=headers, limits=self._limits, progress=job.progress,
                begun=begun,
            )  # fmt: skip
        except DownloadError as wrong:
            if wrong.code != "disk_full" or not self._store.remote:
                raise
            self._straight_through(job, url, headers, into)
        else:
            self._keep(job, fetched, url)

    def _keep(self, job: Job, fetched: Fetched, url: str) -> None:
        job.check()
        try:
            with self._database.transaction() as tx:
                _take_room(tx, job.wanted, fetched.size)
            self._copies.keep(job.wanted, fetched, url, monotonic() - job.began, job.check)
        except (StorageError, DownloadError) as wrong:
            # What was fetched stays, so that only the way into the store is tried again.
            strong = fetched.etag and not fetched.etag.startswith("W/")
            partial = Partial(fetched.path, fetched.etag, fetched.size) if fetched.etag and strong else None
            if partial is None:
                fetched.path.unlink(missing_ok=True)
            full = isinstance(wrong.__cause__, OSError) and wrong.__cause__.errno in FULL
            self._failed(job, "disk_full" if full else wrong.code, str(wrong), partial)

    def _straight_through(self, job: Job, url: str, headers: dict[str, str], into: Path) -> None:
        """Into the object store without a file, for what the disk has no room for; nothing of it can be gone on from."""
        into.unlink(missing_ok=True)
        wanted = job.wanted

        def deliver(media_type: str, chunks: Iterator[bytes]) -> None:
            self._copies.pass_on(wanted, media_type, chunks)

        fetched: Fetched = pass_through(
            self._session(), url, into, deliver, headers=headers, limits=self._limits, progress=job.progress
        )
        self._copies.passed_on(wanted, fetched, url, monotonic() - job.began)

    def _failed(self, job: Job, code: str, message: str, partial: Partial | None) -> None:
        wanted, kept = job.wanted, partial.size if partial else 0
        error = {"code": code, "message": message[:500].replace("\0", "")}
        log.warning("%s: %s: %s", wanted.name, code, message, extra=_about(wanted))
        if code == "disk_full":
            self._no_room(job, error, partial)
            return
        attempts = 0 if kept > job.resumed else wanted.attempts + 1
        if attempts >= FEWER.get(code, ATTEMPTS):
            self._copies.give_up(wanted, error)
            return
        wait_ = backoff.after_failures(max(attempts, 1), LONGEST_WAIT, random.random(), first=5.0)  # noqa: S311 - spreads retries
        self._later(job, timedelta(seconds=wait_), Outcome(error, attempts, partial))

    def _no_room(self, job: Job, error: Error, partial: Partial | None) -> None:
        """Stop all downloads while the disk is full: trying again would only keep it so."""
        spool, needed = self._store.spool, 2 * self._limits.reserve
        free = spool.free()
        if free < needed:
            reason = (
                f"the disk is full: {free:,} bytes are free below {spool.folder}, and {needed:,} are needed to go on"
            )
            with self._database.transaction() as tx:
                if switches.stop_until_free(tx, "downloads", reason, needed, db.now(tx)):
                    log.error("downloads are stopped: %s", reason)
        # No attempt is counted, because nothing was tried.
        self._later(job, NO_ROOM_WAIT if free >= needed else timedelta(0), Outcome(error, job.wanted.attempts, partial))

    def _later(self, job: Job, wait_: timedelta, outcome: Outcome | None = None) -> None:
        """Due again after `wait_`; without an outcome nothing was tried, and what was there stays."""
        wanted = job.wanted
        with self._database.transaction() as tx:
            if outcome is not None and outcome.partial is None:
                artifacts.begun(tx, wanted, partial=None, etag=None, size=None)
            artifacts.retry(
                tx, wanted, due_at=db.now(tx) + wait_, error=outcome.error if outcome else None,
                attempts=outcome.attempts if outcome else wanted.attempts,
                bytes_done=(outcome.partial.size if outcome.partial else 0) if outcome else job.done,
            )  # fmt: skip
        self._bell.changed([str(wanted.generation_id)])


def _take_room(tx: Transaction, wanted: Wanted, size: int) -> None:
    if not keeping.take_room(tx, wanted, size):
        raise DownloadError("quota", f"it has {size:,} bytes, and the project's quota has no room for them")


def _about(wanted: Wanted) -> dict[str, str]:
    return {"generation": ids.public("gen", wanted.generation_id)}
