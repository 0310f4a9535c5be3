"""Webhooks: from the commit of a transition until the receiver has the whole request; throughput; and one endpoint that hangs.

`python -m bench.webhooks [--seconds S] [--backlog N] [--polls R]`. Events are real: generations are cancelled, each in its own transaction.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from bench import kit
from bench.ground import Ground, Tracker, laid, new_ids, pending_answer, poll_beside
from bench.programs import Program, Upstream, call
from tracker.core import ids
from tracker.embedded.ports import free_port, release
from tracker.services.forms import EndpointForm, RegistrationForm

ENDPOINTS = 20
COMMITTERS = 8
"""Threads that commit: enough for the highest rate here."""
LATENCY = {
    "case": "case",
    "rate": "events/s",
    "polls_per_s": "polls/s beside",
    "n": "n",
    "p50": "p50 ms",
    "p95": "p95 ms",
    "p99": "p99 ms",
    "worst": "worst ms",
    "missing": "not come",
}
THROUGHPUT = {"case": "receiver", "n": "deliveries", "per_second": "deliveries/s"}


class Receiver:
    """bench/receiver.py as a process."""

    def __init__(self, ground: Ground) -> None:
        self._port = free_port(18700)
        command = [sys.executable, "-m", "bench.receiver", "--port", str(self._port)]
        self._program = Program(command, log=ground.folder / "receiver.log", ready=b"ready")
        self.url = f"http://127.0.0.1:{self._port}"

    def report(self) -> list[tuple[float, str, str]]:
        """What came since the last report: moment, path, generation."""
        return [(moment, path, generation) for moment, path, generation in call(f"{self.url}/report")]

    def stop(self) -> None:
        self._program.stop()
        release(self._port)


class Commits:
    """Notes the moment right behind each commit: services ring the bell there, in the thread that committed."""

    def __init__(self, tracker: Tracker) -> None:
        self._cancel, self._project = tracker.services.generations.cancel, tracker.project_id
        self._ring, self._mine = tracker.services.bell.ring, threading.local()
        self.moments: dict[str, float] = {}
        tracker.services.bell.ring = self._rung  # type: ignore[method-assign]

    def _rung(self, *arguments: Any, **named: Any) -> bool:
        if generation := getattr(self._mine, "generation", None):
            self.moments.setdefault(generation, time.monotonic())
        return self._ring(*arguments, **named)

    def cancel(self, generation_id: UUID, moment: float) -> None:
        kit.rest_until(moment)
        self._mine.generation = ids.public("gen", generation_id)
        self._cancel(self._project, generation_id)
        self._mine.generation = None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each case")
    parser.add_argument("--backlog", type=int, default=4000, help="deliveries for the throughput")
    parser.add_argument("--only", choices=PARTS, help="this part alone")
    parser.add_argument("--polls", type=float, default=2000.0, help="polls a second beside, where there are any")
    options = parser.parse_args()
    wanted = [options.only] if options.only else list(PARTS)
    with laid() as ground:
        template = pending_answer(ground)
        tables, claims = [], []
        for part in wanted:
            table, said = PARTS[part](ground, template, options)
            tables.append(table)
            claims += said
    tables.append({"title": "Claims", "columns": kit.CLAIMS, "rows": claims})
    kit.finish("webhooks", tables, notes=["The default cap of 4 deliveries in flight per endpoint holds throughout."])


Part = tuple[dict[str, Any], list[dict[str, Any]]]
"""A table, and what must hold of it."""


def _latencies(ground: Ground, template: bytes, options: argparse.Namespace) -> Part:
    rows = [_latency(ground, template, rate, 0, options.seconds) for rate in (1, 50, 200)]
    rows += [_latency(ground, template, rate, options.polls, options.seconds) for rate in (50, 200)]
    claims = [
        kit.verdict(
            f"p99 ms at {row['rate']}/s, {row['case']}", row["p99"], 20 if row["rate"] == 50 else 35, at_least=False
        )
        for row in rows[1:]
    ]
    return {"title": "Commit to whole request received", "columns": LATENCY, "rows": rows}, claims


def _head_of_line(ground: Ground, template: bytes, options: argparse.Namespace) -> Part:
    healthy = _latency(
        ground, template, 100, 0, options.seconds, case="20 healthy endpoints, 19 of them counted", but="/hook/0"
    )
    hanging = _latency(ground, template, 100, 0, options.seconds, case="one of 20 hangs, the other 19", but="/hang/0")
    claim = kit.verdict(
        "p95 of the others while one hangs, over without", hanging["p95"] / healthy["p95"], 1.2, at_least=False
    )
    return {"title": "Head of line", "columns": LATENCY, "rows": [healthy, hanging]}, [claim]


def _throughputs(ground: Ground, template: bytes, options: argparse.Namespace) -> Part:
    rows = [_throughput(ground, template, kind, options.backlog) for kind in ("hook", "slow")]
    claim = kit.verdict("deliveries/s to instant receivers", rows[0]["per_second"], 2500, at_least=True)
    return {"title": f"A backlog over {ENDPOINTS} endpoints", "columns": THROUGHPUT, "rows": rows}, [claim]


PARTS = {"latency": _latencies, "hang": _head_of_line, "throughput": _throughputs}


@contextmanager
def _staged(ground: Ground, template: bytes, kinds: Sequence[str]) -> Iterator[tuple[Tracker, Receiver, Upstream]]:
    """An installation with one endpoint per entry of `kinds`, each with a tag of its own that decides what it gets."""
    upstream, receiver = Upstream(ground, template, latency_ms=200, tls=False), Receiver(ground)
    tracker = Tracker(ground, f"webhooks{next(_numbers)}", redis_number=5, workers_poll=2)
    try:
        tracker.credential(upstream.url + "/single")
        for number, kind in enumerate(kinds):
            form = EndpointForm(
                url=f"{receiver.url}/{kind}/{number}",
                tags=[f"to-{number}"],
                events=["generation.cancelled", "generation.failed"],
            )
            tracker.services.endpoints.create(tracker.project_id, form)
        yield tracker, receiver, upstream
    finally:
        tracker.close()
        receiver.stop()
        upstream.stop()


_numbers = itertools.count()


def _registered(tracker: Tracker, count: int) -> list[UUID]:
    """Generations for the endpoints in turn, none of them due for a poll."""
    forms = [
        RegistrationForm(provider="luma", task_id=one, timeout="P30D", tags=[f"to-{n % ENDPOINTS}"])
        for n, one in enumerate(new_ids(count))
    ]
    made: list[UUID] = []
    for i in range(0, count, 1000):
        outcomes = tracker.services.registration.register_many(tracker.project_id, forms[i : i + 1000])
        made += [outcome.generation.id for outcome in outcomes if hasattr(outcome, "generation")]
    tracker.connection.execute("UPDATE polls SET due_at = now() + interval '1 day'")
    return made


def _latency(
    ground: Ground, template: bytes, rate: float, polls: float, seconds: float, *, case: str = "", but: str = ""
) -> dict[str, Any]:
    kinds = ["hang" if but.startswith("/hang") else "hook", *(["hook"] * (ENDPOINTS - 1))]
    with _staged(ground, template, kinds) as (tracker, receiver, upstream):
        wanted, warm = _registered(tracker, max(10, int(rate * seconds))), _registered(tracker, 2 * ENDPOINTS)
        if polls:
            poll_beside(tracker, polls)
        tracker.start("worker-webhook", "worker-default", "worker-poll", "beat")
        commits = Commits(tracker)
        _commit(commits, warm, rate=20)
        _collected(receiver, commits, but, 10.0)
        commits.moments.clear()
        upstream.reset()
        began = time.monotonic()
        _commit(commits, wanted, rate)
        polled = upstream.stats()["polls"] / (time.monotonic() - began)
        came = _collected(receiver, commits, but, 10.0)
    left_out = {ids.public("gen", one) for n, one in enumerate(wanted) if but and n % ENDPOINTS == 0}
    counted = {one: at for one, at in commits.moments.items() if one not in left_out}
    late = [1000 * (came[one][0] - at) for one, at in counted.items() if one in came]
    about = {"case": case or ("while polling" if polls else "events alone"), "rate": rate, "polls_per_s": polled}
    return {**about, **_latency_row(late), "missing": len(counted) - len(late)}


def _commit(commits: Commits, wanted: Sequence[UUID], rate: float) -> None:
    begins = time.monotonic() + 0.2
    with ThreadPoolExecutor(COMMITTERS) as threads:
        for _ in threads.map(commits.cancel, wanted, (begins + n / rate for n in range(len(wanted)))):
            pass


def _collected(receiver: Receiver, commits: Commits, but: str, seconds: float) -> dict[str, tuple[float, str]]:
    """First arrivals by generation, once all but those for `but` have come or `seconds` are over."""
    came: dict[str, tuple[float, str]] = {}

    def all_there() -> bool:
        for moment, path, generation in receiver.report():
            came.setdefault(generation, (moment, path))
        return (
            len([1 for _, path in came.values() if path != but])
            >= len(commits.moments) * (1 - bool(but) / ENDPOINTS) - 0.5
        )

    kit.wait_for(all_there, seconds, pause=0.1)
    return came


def _latency_row(late: list[float]) -> dict[str, Any]:
    shares = {name: kit.quantile(late, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    kit.say(", ".join(f"{name} {value:.1f} ms" for name, value in shares.items()))
    return {"n": len(late), **shares, "worst": max(late, default=float("nan"))}


def _throughput(ground: Ground, template: bytes, kind: str, backlog: int) -> dict[str, Any]:
    """All deliveries become due in one transaction (the account of their generations is deleted); then the worker starts."""
    with _staged(ground, template, [kind] * ENDPOINTS) as (tracker, receiver, _):
        _registered(tracker, backlog)
        tracker.services.credentials.delete(tracker.project_id, "default", force=True)
        tracker.start("worker-webhook", "worker-default", "beat")
        moments: list[float] = []

        def all_there() -> bool:
            moments.extend(moment for moment, _, _ in receiver.report())
            return len(moments) >= backlog

        kit.wait_for(all_there, 120, pause=0.2)
    seconds = max(moments) - min(moments)
    words = "answers at once" if kind == "hook" else "answers after 100 ms"
    kit.say(f"{words}: {len(moments) / seconds:,.0f} deliveries/s")
    return {"case": words, "n": len(moments), "per_second": len(moments) / seconds}


if __name__ == "__main__":
    main()
