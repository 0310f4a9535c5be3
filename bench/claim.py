"""The claim: how long it takes from ten thousand rows to ten million, and what one unchanged poll writes to the log.

`python -m bench.claim [--sizes N ...] [--claims N]`. The narrow table is filled alone: the rows it refers to do not matter to a claim.
"""

from __future__ import annotations

import argparse
import time
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text

from bench import kit
from bench.ground import Ground, laid
from tracker.core import backoff, ids
from tracker.core.schedule import Clock
from tracker.store import db, due
from tracker.store.db import Database
from tracker.store.migrations import migrate

ACCOUNTS = 20
BATCH = 200
COLUMNS = {
    "rows": "rows on the schedule",
    "n": "claims of 200",
    "p50": "p50 ms",
    "p99": "p99 ms",
    "wal_first": "WAL B/poll right after a checkpoint",
    "wal": "WAL B/poll once every page was written",
    "mb": "table and indexes, MB",
}


def main() -> None:
    options = _options()
    with laid() as ground:
        rows = [_measured(ground, size, options.claims) for size in options.sizes]
    smallest, largest = rows[0], rows[-1]
    claims = [
        kit.verdict(
            f"p50 at {largest['rows']:,} over p50 at {smallest['rows']:,}",
            largest["p50"] / smallest["p50"],
            2,
            at_least=False,
        ),
        kit.verdict("WAL bytes of an unchanged poll, at most", max(row["wal"] for row in rows), 450, at_least=False),
    ]
    tables = [
        {"title": f"Claims over {ACCOUNTS} accounts, everything due", "columns": COLUMNS, "rows": rows},
        {"title": "Claims", "columns": kit.CLAIMS, "rows": claims},
    ]
    kit.finish(
        "claim", tables, notes=["An unchanged answer writes nothing more: the claim is all that such a poll costs."]
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000, 10_000_000])
    parser.add_argument("--claims", type=int, default=400, help="claims in each pass at most")
    return parser.parse_args()


def _measured(ground: Ground, size: int, most: int) -> dict[str, Any]:
    url = ground.database(f"claim{size}")
    migrate(url)
    database = Database(url)
    try:
        _fill(database, size)
        with database.transaction() as tx:
            now = db.now(tx)
        _maintain(database)
        claims = min(most, size // BATCH)
        # In the first pass each page is written whole once; where a pass reaches every page, the second tells what a poll costs.
        first, took = _pass(database, now, claims)
        later, again = _pass(database, now + timedelta(minutes=5), claims) if claims * BATCH >= size else (0.0, [])
        return {
            "rows": size, "n": len(took) + len(again), "p50": kit.quantile(took + again, 0.5), "p99": kit.quantile(took + again, 0.99),
            "wal_first": first, "wal": later, "mb": _size(database),
        }  # fmt: skip
    finally:
        database.close()


def _fill(database: Database, size: int) -> None:
    gaps = Clock().gaps(0.5)
    with database.transaction() as tx:
        tx.execute(text("SET LOCAL statement_timeout = 0"))
        tx.execute(text("ALTER TABLE polls DROP CONSTRAINT polls_generation_id_fkey"))
        tx.execute(text("INSERT INTO projects (id, name) VALUES (gen_random_uuid(), 'bench')"))
        tx.execute(
            text(
                "INSERT INTO credentials (project_id, name, providers, callback_token, requests_per_second, concurrency, tokens)"
                " SELECT id, n::text, '{luma}', n::text, 1e8, 100000000, 1e8 FROM projects, generate_series(1, :accounts) n"
            ),
            {"accounts": ACCOUNTS},
        )
        tx.execute(
            text(
                "INSERT INTO clocks (provider, subject, phase, events, exposure, gaps, price)"
                " VALUES ('luma', '', 'waiting', :zeros, :zeros, :gaps, 0.5)"
            ),
            {"zeros": [0.0] * 64, "gaps": gaps},
        )
        tx.execute(
            text(
                "INSERT INTO polls (generation_id, credential_id, clock_id, due_at, clock_from, timeout_at, asked_at, watched_at)"
                " SELECT gen_random_uuid(), c.id, (SELECT id FROM clocks), now() - random() * interval '1 s',"
                " now() - random() * interval '1 h',"
                " now() + interval '2 h', now() - interval '1 min', now() - interval '2 min'"
                " FROM (SELECT id FROM credentials) c, generate_series(1, :each)"
            ),
            {"each": size // ACCOUNTS},
        )


def _maintain(database: Database) -> None:
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
        connection.execute(text("CHECKPOINT"))


def _pass(database: Database, now: datetime, claims: int) -> tuple[float, list[float]]:
    """Bytes of log for each poll, and the milliseconds of each claim with its commit."""
    before, took, polls = _log(database), [], 0
    for _ in range(claims):
        began = time.perf_counter()
        with database.transaction() as tx:
            found = due.claim(
                tx,
                batch=ids.uuid7(now),
                now=now,
                limit=BATCH,
                longest=60.0,
                most_slow=4,
                probe_waits=backoff.PAUSE_SCHEDULE,
            )
        took.append((time.perf_counter() - began) * 1000)
        polls += len(found)
        with database.transaction() as tx:
            tx.execute(text("DELETE FROM flights"))
    return (_log(database) - before) / max(polls, 1), took


def _log(database: Database) -> int:
    with database.transaction() as tx:
        return int(tx.execute(text("SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint")).scalar_one())


def _size(database: Database) -> float:
    with database.transaction() as tx:
        return round(int(tx.execute(text("SELECT pg_total_relation_size('polls')")).scalar_one()) / 1e6, 1)


if __name__ == "__main__":
    main()
