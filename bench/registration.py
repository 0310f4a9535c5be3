"""Registration over the API while the tracker polls: ids a second in batches of 1,000, and how long one single POST takes at 100 a second.

`python -m bench.registration [--batches N] [--seconds S] [--rate R] [--pending N]`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from bench import kit
from bench.ground import Tracker, laid, new_ids, pending_answer, poll_beside
from bench.proc import Meter
from bench.programs import Upstream

CALLERS = 16
"""Connections of the callers, kept alive."""
BATCH = 1000
FULL = {"tags": ["campaign", "seven"], "metadata": {"user": 7, "note": "x" * 200}}
BATCHES = {
    "case": "batches of 1,000",
    "ids_per_s": "ids/s, median",
    "slowest": "slowest batch",
    "cpu": "CPU s per 1,000",
    "api": "of it the API",
    "postgres": "Postgres",
}
SINGLES = {
    "case": "single POST",
    "n": "n",
    "p50": "p50 ms",
    "p95": "p95 ms",
    "p99": "p99 ms",
    "worst": "worst ms",
    "polls_per_s": "polls/s beside",
}


class Caller:
    """A keep-alive connection per thread."""

    def __init__(self, tracker: Tracker) -> None:
        self._port = tracker.settings.api_port
        key = tracker.settings.required("bootstrap_api_key")
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._own = threading.local()

    def post(self, path: str, body: Any) -> Any:
        """The decoded answer; RuntimeError for anything but success."""
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("POST", path, json.dumps(body), self._headers)
        answer = connection.getresponse()
        said = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{path} answered {answer.status}: {said[:300]!r}")
        return json.loads(said)


def main() -> None:
    options = _options()
    with laid() as ground:
        upstream = Upstream(ground, pending_answer(ground), latency_ms=200, tls=False)
        tracker = Tracker(ground, "registration", redis_number=5, workers_poll=4)
        try:
            tracker.credential(upstream.url)
            tracker.start("api", "worker-default", "worker-poll", "beat")
            caller = Caller(tracker)
            tracker.connection.execute(
                "UPDATE credentials SET requests_per_second = 0.01"
            )  # nothing is polled beside the first
            batches = [_batches(tracker, caller, {}, options.batches), _batches(tracker, caller, FULL, options.batches)]
            tracker.connection.execute("UPDATE polls SET due_at = now() + interval '1 day'")
            tracker.connection.execute("UPDATE credentials SET requests_per_second = 100000")
            poll_beside(tracker, options.pending / 10)
            singles = [_singles(caller, upstream, options.rate, options.seconds)]
        finally:
            tracker.close()
            upstream.stop()
    claims = [
        kit.verdict("ids/s in batches, plain", batches[0]["ids_per_s"], 5000, at_least=True),
        kit.verdict("single POST p99 while polling, ms", singles[0]["p99"], 25, at_least=False),
    ]
    tables = [
        {"title": "Batches over the API, one caller", "columns": BATCHES, "rows": batches},
        {"title": f"Single POST at {options.rate:g}/s while polling", "columns": SINGLES, "rows": singles},
        {"title": "Claims", "columns": kit.CLAIMS, "rows": claims},
    ]
    kit.finish(
        "registration",
        tables,
        notes=["CPU is that of the API and of Postgres. Every registration is durable when it is answered."],
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rate", type=float, default=100.0, help="single POSTs a second")
    parser.add_argument(
        "--pending", type=int, default=5000, help="generations that are polled every 10 s beside the single POSTs"
    )
    return parser.parse_args()


def _batches(tracker: Tracker, caller: Caller, fields: dict[str, Any], count: int) -> dict[str, Any]:
    bodies = [
        {"generations": [{"provider": "luma", "task_id": one, **fields} for one in new_ids(BATCH)]}
        for _ in range(count + 2)
    ]
    for body in bodies[:2]:
        caller.post("/v1/generations/batch", body)
    meter = Meter({"api": tracker.trees["api"], "postgres": tracker.ground.servers["postgres"]})
    took = []
    for body in bodies[2:]:
        began = time.perf_counter()
        results = caller.post("/v1/generations/batch", body)["results"]
        took.append(time.perf_counter() - began)
        if any(one["status"] != 201 for one in results):
            raise RuntimeError(f"not registered: {results[0]}")
    spent, _foreign = meter.read()
    case = "with tags and metadata" if fields else "ids alone"
    cpu = {name: seconds / count for name, seconds in spent.items()}
    return {
        "case": case,
        "ids_per_s": BATCH / median(took),
        "slowest": BATCH / max(took),
        "cpu": sum(cpu.values()),
        **cpu,
    }


def _singles(caller: Caller, upstream: Upstream, rate: float, seconds: float) -> dict[str, Any]:
    begins = time.monotonic() + 0.5

    def one(number: int, task_id: str) -> float:
        planned = begins + number / rate
        kit.rest_until(planned)
        caller.post("/v1/generations", {"provider": "luma", "task_id": task_id})
        # From the planned moment, so that waiting for a free connection counts too.
        return 1000 * (time.monotonic() - planned)

    ids = new_ids(int(rate * seconds))
    upstream.reset()
    with ThreadPoolExecutor(CALLERS) as threads:
        took = list(threads.map(one, range(len(ids)), ids))
    polls = upstream.stats()["polls"] / seconds
    counted = took[int(rate) :]  # the first second opens the connections
    shares = {name: kit.quantile(counted, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    return {"case": f"{CALLERS} connections", "n": len(counted), **shares, "worst": max(counted), "polls_per_s": polls}


if __name__ == "__main__":
    main()
