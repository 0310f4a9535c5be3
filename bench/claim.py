"""The claim: how long it takes from ten thousand rows to ten million, and what one unchanged poll writes to the log.

`python -m bench.claim [--sizes N ...] [--claims N]`. The narrow table is filled alone: the rows it refers to do not matter to a claim.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import text

from bench import kit
from bench.ground import Ground, laid
from tracker.core import backoff, ids
from tracker.core.schedule import Clock
from tracker.store import db, due
from tracker.store.db import Database
from tracker.store.migrations import migrate
from tracker.store.ready import Starts

ACCOUNTS = 20
BATCH = 200
ROUNDS = 10
WITHOUT_HINT = 30
"""Claims of which each looks for the first due poll from the beginning, as one does every five seconds."""
TOUCHES = 8
"""Polls for each page of the table after which nearly every page was changed: all but one in 3,000."""
COLUMNS = {
    "rows": "rows on the schedule",
    "n": "claims of 200",
    "p50": "p50 ms",
    "p99": "p99 ms",
    "wal": "WAL B/poll",
    "plain": "without page images",
    "p50_whole": "p50 ms without a hint",
    "n_first": "claims after a checkpoint",
    "p50_first": "p50 ms then",
    "p99_first": "p99 ms then",
    "wal_first": "WAL B/poll then",
    "mb": "table and indexes, MB",
}


def main() -> None:
    options = _options()
    with laid({"shared_buffers": f"{_quarter()}MB", "max_wal_size": "12GB"}) as ground:
        schedules = [Schedule(ground, size) for size in sorted(options.sizes)]
        try:
            rows = _measured(schedules, options.claims)
        finally:
            for schedule in schedules:
                schedule.close()
    smallest, largest = rows[0], rows[-1]
    claims = [
        _flat("p50", smallest, largest),
        _flat("p50_first", smallest, largest),
        kit.verdict(
            "WAL bytes of an unchanged poll without page images, at most",
            max(row["plain"] for row in rows),
            450,
            at_least=False,
        ),
    ]
    tables = [
        {"title": f"Claims over {ACCOUNTS} accounts, everything due", "columns": COLUMNS, "rows": rows},
        {"title": "Claims", "columns": kit.CLAIMS, "rows": claims},
    ]
    kit.finish(
        "claim",
        tables,
        notes=[
            "An unchanged answer writes nothing more: the claim is all that such a poll costs.",
            "After a checkpoint the first change of each page writes it whole to the log: `then` are the first claims after one.",
            "`Without a hint` are claims that step over all that was claimed since the last vacuum, as one does every five seconds.",
            f"PostgreSQL's shared_buffers are {_quarter():,} MB, a quarter of the memory; max_wal_size is 12 GB.",
        ],
    )


def _quarter() -> int:
    """A quarter of the memory in MB, as PostgreSQL's manual advises for a server of its own."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**22


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--claims", type=int, default=400, help="claims that are measured, of each kind at most")
    options = parser.parse_args()
    if min(options.sizes) < ROUNDS * BATCH or options.claims < ROUNDS:
        parser.error(f"schedules of {ROUNDS * BATCH} rows and {ROUNDS} claims are the least")
    return options


def _flat(column: str, smallest: dict[str, Any], largest: dict[str, Any]) -> dict[str, Any]:
    name = f"{COLUMNS[column]} at {largest['rows']:,} over {smallest['rows']:,} rows"
    return kit.verdict(name, largest[column] / smallest[column], 2, at_least=False)


def _measured(schedules: Sequence[Schedule], most: int) -> list[dict[str, Any]]:
    """A row for each schedule. They are measured in turn, a few claims at a time: a machine is faster in one minute than in the next."""
    schedules[0].maintain("CHECKPOINT")  # of all of them: it is the server's
    first = _in_turn(schedules, [min(most, schedule.size // BATCH) for schedule in schedules])
    for schedule in schedules:
        schedule.claims(TOUCHES * schedule.pages // BATCH)
    later = _in_turn(schedules, [most] * len(schedules))
    whole = [schedule.claims(WITHOUT_HINT, hinted=False) for schedule in schedules]
    return [
        {"rows": schedule.size, "mb": schedule.megabytes} | after.row("") | before.row("_first") | bare.row("_whole")
        for schedule, before, after, bare in zip(schedules, first, later, whole, strict=True)
    ]


def _in_turn(schedules: Sequence[Schedule], counts: Sequence[int]) -> list[Claims]:
    parts = [[s.claims(count // ROUNDS) for s, count in zip(schedules, counts, strict=True)] for _ in range(ROUNDS)]
    return [Claims.together(of_one) for of_one in zip(*parts, strict=True)]


def _fill(database: Database, size: int) -> None:
    gaps = Clock().gaps(0.5)
    with database.transaction() as tx:
        tx.execute(text("SET LOCAL statement_timeout = 0"))
        tx.execute(text("ALTER TABLE polls DROP CONSTRAINT polls_generation_id_fkey"))
        tx.execute(text("INSERT INTO projects (id, name) VALUES (gen_random_uuid(), 'bench')"))
        accounts = (
            tx.execute(
                text(
                    "INSERT INTO credentials (project_id, name, providers, callback_token, requests_per_second, concurrency, tokens)"
                    " SELECT id, n::text, '{luma}', n::text, 1e8, 100000000, 1e8 FROM projects, generate_series(1, :accounts) n"
                    " RETURNING id"
                ),
                {"accounts": ACCOUNTS},
            )
            .scalars()
            .all()
        )
        tx.execute(
            text(
                "INSERT INTO clocks (provider, subject, phase, events, exposure, gaps, price)"
                " VALUES ('luma', '', 'waiting', :zeros, :zeros, :gaps, 0.5)"
            ),
            {"zeros": [0.0] * 64, "gaps": gaps},
        )
        # In the order and with the ids of an hour's registrations: ids are UUIDs of version 7, and accounts take turns.
        tx.execute(
            text(
                "INSERT INTO polls (generation_id, credential_id, clock_id, due_at, clock_from, timeout_at, asked_at, watched_at)"
                " SELECT uuidv7(r.at - now()), (:accounts)[1 + i % cardinality(:accounts)], (SELECT id FROM clocks),"
                " now() - random() * interval '10 min', r.at, now() + interval '2 h', now() - interval '1 min', now() - interval '2 min'"
                " FROM generate_series(1, :size) AS i, LATERAL (SELECT now() - (:size - i) * interval '1 h' / :size AS at) AS r"
            ),
            {"size": size, "accounts": accounts},
        )


class Claims(NamedTuple):
    """The milliseconds of each claim with its commit, and for so many polls the bytes of log that they wrote.

    `plain` are those of the records alone, of all that the server did meanwhile.
    """

    took: list[float]
    wal: int
    plain: int
    polls: int

    @classmethod
    def together(cls, parts: Sequence[Claims]) -> Claims:
        took = [ms for part in parts for ms in part.took]
        return cls(took, *(sum(column) for column in list(zip(*parts, strict=True))[1:]))

    def row(self, suffix: str) -> dict[str, float]:
        """Its columns."""
        told = {"n": len(self.took), "p50": kit.quantile(self.took, 0.5), "p99": kit.quantile(self.took, 0.99)}
        told |= {"wal": self.wal / max(self.polls, 1), "plain": self.plain / max(self.polls, 1)}
        return {f"{name}{suffix}": value for name, value in told.items()}


class Schedule:
    """A filled schedule and who claims from it as the product does. Polls are answered at once: nothing is left in flight."""

    def __init__(self, ground: Ground, size: int) -> None:
        self.size = size
        url = ground.database(f"claim{size}")
        migrate(url)
        self._database = Database(url)
        # The product's claims do not wait for the disk; the next commit does, and for what they wrote. Here each waits for its own.
        self._claiming = self._database.tuned(due.SETTINGS | {"synchronous_commit": "on"}, size=1)
        self._starts = Starts()
        _fill(self._database, size)
        self.maintain("VACUUM ANALYZE")
        self.maintain("CREATE EXTENSION pg_walinspect")
        with self._database.transaction() as tx:
            self._now = db.now(tx)

    def close(self) -> None:
        self._database.close()

    def maintain(self, statement: str) -> None:
        """Run what stands outside of transactions and takes its time."""
        with self._database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text("SET statement_timeout = 0"))
            connection.execute(text(statement))

    def claims(self, count: int, *, hinted: bool = True) -> Claims:
        """So many whole claims. Once all is asked for, time goes on until everything is due again."""
        before, place, took, polls = self._log(), self._place(), [], 0
        while len(took) < count:
            starts = self._starts if hinted else Starts()
            began = time.perf_counter()
            found = self._claim(starts)
            if found == BATCH:
                took.append((time.perf_counter() - began) * 1000)
            else:
                self._now += timedelta(minutes=5)
            polls += found
            with self._database.transaction() as tx:
                tx.execute(text("DELETE FROM flights"))
        return Claims(took, self._log() - before, self._records(place), polls)

    def _claim(self, starts: Starts) -> int:
        with self._claiming.transaction() as tx:
            claimed = due.claim(
                tx,
                batch=ids.uuid7(self._now),
                now=self._now,
                limit=BATCH,
                longest=60.0,
                most_slow=4,
                probe_waits=backoff.PAUSE_SCHEDULE,
                starts=starts,
            )
        return claimed.total if claimed else 0

    def _log(self) -> int:
        """Bytes that the claims have written to the log, and nobody else."""
        with self._claiming.transaction() as tx:
            tx.execute(text("SELECT pg_stat_force_next_flush()"))
        with self._claiming.transaction() as tx:
            return int(tx.execute(text("SELECT wal_bytes FROM pg_stat_get_backend_wal(pg_backend_pid())")).scalar_one())

    def _place(self) -> str:
        with self._database.transaction() as tx:
            return str(tx.execute(text("SELECT pg_current_wal_flush_lsn()::text")).scalar_one())

    def _records(self, since: str) -> int:
        """Bytes of the log's records since then, without the images of pages in them."""
        with self._database.transaction() as tx:
            query = "SELECT coalesce(sum(record_size), 0)::bigint FROM pg_get_wal_stats(:since, :until) WHERE count > 0"
            return int(tx.execute(text(query), {"since": since, "until": self._place()}).scalar_one())

    @property
    def megabytes(self) -> float:
        """The table with its indexes."""
        return round(self._number("SELECT pg_total_relation_size('polls')") / 1e6, 1)

    @property
    def pages(self) -> int:
        """Pages of 8 KB of the table."""
        return self._number("SELECT pg_relation_size('polls') / 8192")

    def _number(self, query: str) -> int:
        with self._database.transaction() as tx:
            return int(tx.execute(text(query)).scalar_one())


if __name__ == "__main__":
    main()
