"""A large fleet on one machine: how late the schedule runs, alone and beside accounts that cannot be asked, and memory over minutes.

`python -m bench.fleet [--rows N] [--beside N] [--alone M] [--minutes M] [--longest S] [--budget R]`. The final run takes 100,000 rows and
10 minutes beside others. Memory is that of these minutes: whoever does something for the first time keeps the statement's plan for good, so
each PostgreSQL process that serves us grows by some 0.7 MB when the load changes, and then no more.
"""

from __future__ import annotations

import argparse
import time
from statistics import median
from typing import Any

from bench import kit
from bench.ground import Tracker, laid, new_ids, pending_answer
from bench.proc import Meter, memory, tree
from bench.programs import Upstream

PROGRAMS = ("api", "worker-poll", "worker-default", "worker-webhook", "worker-download", "beat")
LAG = "SELECT greatest(0, extract(epoch FROM now() - min(due_at)))::float8 FROM polls WHERE credential_id = %s AND lane = 0"
"""The age of the oldest due poll of one account: what the store's `lag` says of all together."""
WARM = 20.0
"""Seconds before each phase counts: registering takes the same cores."""
MEMORY_EVERY = 5.0
BUFFERS = "postgres, its shared memory"
"""Fills as the table is read and grows with the second phase, up to the size that the server was started with: counted apart, since only
the bound of it can be shown. The rest of PostgreSQL must stay flat like everybody."""
COUNT = "(postgres: processes, not MB)"
"""Each connection is one of some MB, and so is whoever cleans up: what their number explains is no leak."""
PHASES = ("alone", "beside a paused and a throttled account")
COLUMNS = {
    "phase": "phase",
    "rows": "rows on the schedule",
    "p50": "lag p50, s",
    "p99": "lag p99, s",
    "worst": "worst",
    "polls_per_s": "polls/s",
    "cpu": "CPU s per 1,000",
}
MEMORY_COLUMNS = {"process": "processes", "first": "MB, first third", "last": "MB, last third", "growth": "growth"}


def main() -> None:
    options = _options()
    with laid() as ground:
        upstream = Upstream(ground, pending_answer(ground), latency_ms=200, tls=False)
        tracker = Tracker(ground, "fleet", redis_number=5, workers_poll=4)
        try:
            rows, samples = _phases(tracker, upstream, options)
            kept = [_grown(name, values) for name, values in samples.items()]
            buffers = float(_one(tracker, "SELECT setting FROM pg_settings WHERE name = 'shared_memory_size'"))
        finally:
            tracker.close()
            upstream.stop()
    claims = [kit.verdict(f"{row['phase']}: lag p99, s", row["p99"], 2, at_least=False) for row in rows]
    claims += [
        kit.verdict(f"MB of {BUFFERS}", one["last"], buffers, at_least=False)
        if one["process"] == BUFFERS
        else kit.verdict(f"memory of {one['process']}: last third over first", one["growth"], 1.05, at_least=False)
        for one in kept
        if one["process"] != COUNT
    ]
    tables = [
        {
            "title": f"A fleet of {options.rows:,}, budget {options.budget:,.0f} requests/s",
            "columns": COLUMNS,
            "rows": rows,
        },
        {
            "title": f"Proportional memory over {options.minutes:g} min beside them",
            "columns": MEMORY_COLUMNS,
            "rows": kept,
        },
        {"title": "Claims", "columns": kit.CLAIMS, "rows": claims},
    ]
    notes = [f"Batch queries where the provider has them; `poll_longest` is {options.longest:g} s."]
    kit.finish("fleet", tables, notes=notes, raw={"memory": samples, "every_s": MEMORY_EVERY})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--beside", type=int, default=50_000, help="due rows of each account that cannot be asked")
    parser.add_argument("--alone", type=float, default=3.0, help="minutes of the first phase")
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes of the second phase, and of memory")
    parser.add_argument("--longest", type=float, default=120.0, help="seconds between two looks at most")
    parser.add_argument("--budget", type=float, default=2000.0, help="requests a second")
    return parser.parse_args()


def _phases(
    tracker: Tracker, upstream: Upstream, options: argparse.Namespace
) -> tuple[list[dict[str, Any]], dict[str, list[float]]]:
    kit.say(f"registering {options.rows:,}")
    tracker.credential(upstream.url, requests_per_second=options.budget, concurrency=2000)
    tracker.register(new_ids(options.rows), poll_longest=options.longest)
    tracker.connection.execute("UPDATE generations SET state = 'processing', provider_status = 'processing'")
    tracker.connection.execute(
        "UPDATE polls SET due_at = now() + random() * make_interval(secs => %s)", (options.longest,)
    )
    tracker.connection.execute("VACUUM ANALYZE")
    tracker.start(*PROGRAMS)
    kit.rest_until(time.monotonic() + WARM)
    samples: dict[str, list[float]] = {}
    rows = [_watched(tracker, upstream, PHASES[0], options.alone * 60, {})]
    _burden(tracker, upstream, options.beside)
    kit.rest_until(time.monotonic() + WARM)
    rows.append(_watched(tracker, upstream, PHASES[1], options.minutes * 60, samples))
    return rows, samples


def _burden(tracker: Tracker, upstream: Upstream, beside: int) -> None:
    """Two more accounts full of due work: one paused until tomorrow, one that may ask once a second."""
    for name in ("paused", "throttled"):
        kit.say(f"registering {beside:,} for the {name} account")
        tracker.credential(upstream.url, name, requests_per_second=1, concurrency=2000)
        if name == "paused":
            tracker.connection.execute(
                "UPDATE credentials SET state = 'paused', paused_reason = 'benchmark', paused_at = now(),"
                " probe_at = now() + interval '1 day' WHERE name = 'paused'"
            )
        tracker.register(new_ids(beside), credential=name)


def _watched(
    tracker: Tracker, upstream: Upstream, phase: str, seconds: float, samples: dict[str, list[float]]
) -> dict[str, Any]:
    kit.say(f"{phase}: {seconds:.0f} s")
    account = _one(tracker, "SELECT id FROM credentials WHERE name = 'default'")
    lags: list[float] = []
    upstream.reset()
    meter = Meter({**tracker.trees, **tracker.ground.servers})
    began = time.monotonic()
    remember = 0.0
    while (now := time.monotonic()) < began + seconds:
        lags.append(float(_one(tracker, LAG, account) or 0.0))
        if now >= remember:
            remember = now + MEMORY_EVERY
            for name, pid in {**tracker.trees, **tracker.ground.servers}.items():
                own, shared = memory(pid)
                if name == "postgres":
                    samples.setdefault(BUFFERS, []).append(shared)
                    samples.setdefault(COUNT, []).append(len(tree(pid)))
                samples.setdefault(name, []).append(own if name == "postgres" else own + shared)
        kit.rest_until(now + 0.2)
    spent, _ = meter.read()
    polls = upstream.stats()["polls"]
    return {
        "phase": phase, "rows": int(_one(tracker, "SELECT count(*) FROM polls")), "p50": median(lags), "p99": kit.quantile(lags, 0.99),
        "worst": max(lags), "polls_per_s": polls / seconds, "cpu": sum(spent.values()) * 1000 / max(1, polls),
    }  # fmt: skip


def _one(tracker: Tracker, statement: str, *values: Any) -> Any:
    row = tracker.connection.execute(statement, values).fetchone()
    return row[0] if row else None


def _grown(name: str, values: list[float]) -> dict[str, Any]:
    third = max(1, len(values) // 3)
    first, last = median(values[:third]), median(values[-third:])
    return {"process": name, "first": first, "last": last, "growth": last / max(first, 1e-9)}


if __name__ == "__main__":
    main()
