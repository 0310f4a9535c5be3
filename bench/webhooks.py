"""Webhooks: from the commit of a transition until the receiver has the whole request; throughput; and one endpoint that hangs.

`python -m bench.webhooks [--seconds S] [--backlog N] [--polls R]`. Events are real, of two sources: generations that a caller cancels, each
in a transaction of its own, and generations whose end a poll sees, as nearly all events are.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple
from uuid import UUID

from bench import kit
from bench.ground import Ground, Tracker, ended_answer, laid, new_ids, pending_answer, poll_beside
from bench.programs import Program, Upstream, call
from bench.upstream import ENDED
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


class Answers(NamedTuple):
    """What the upstream answers about generations that go on, and about those that have ended."""

    pending: bytes
    ended: bytes


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
        answers = Answers(pending_answer(ground), ended_answer(ground))
        tables, claims = [], []
        for part in wanted:
            table, said = PARTS[part](ground, answers, options)
            tables.append(table)
            claims += said
    tables.append({"title": "Claims", "columns": kit.CLAIMS, "rows": claims})
    kit.finish("webhooks", tables, notes=NOTES)


NOTES = (
    "The default cap of 4 deliveries in flight per endpoint holds throughout.",
    "Seen by polls: the moment is PostgreSQL's own of the commit, from before its flush to the disk.",
    "Cancelled: one program does, each in its own transaction, with half a core at 200/s; the moment is the commit's return.",
)
Part = tuple[dict[str, Any], list[dict[str, Any]]]
"""A table, and what must hold of it."""


def _latencies(ground: Ground, answers: Answers, options: argparse.Namespace) -> Part:
    rows = [_latency(ground, answers, rate, 0, options.seconds) for rate in (1, 50, 200)]
    rows += [_latency(ground, answers, rate, options.polls, options.seconds) for rate in (50, 200)]
    rows += [
        _seen_by_polls(ground, answers, rate, polls, options.seconds)
        for polls in (0, options.polls)
        for rate in (50, 200)
    ]
    claims = [
        kit.verdict(
            f"p99 ms at {row['rate']}/s, {row['case']}", row["p99"], 20 if row["rate"] == 50 else 35, at_least=False
        )
        for row in rows[1:]
    ]
    return {"title": "Commit to whole request received", "columns": LATENCY, "rows": rows}, claims


def _head_of_line(ground: Ground, answers: Answers, options: argparse.Namespace) -> Part:
    healthy = _latency(
        ground, answers, 100, 0, options.seconds, case="20 healthy endpoints, 19 of them counted", but="/hook/0"
    )
    hanging = _latency(ground, answers, 100, 0, options.seconds, case="one of 20 hangs, the other 19", but="/hang/0")
    claim = kit.verdict(
        "p95 of the others while one hangs, over without", hanging["p95"] / healthy["p95"], 1.2, at_least=False
    )
    return {"title": "Head of line", "columns": LATENCY, "rows": [healthy, hanging]}, [claim]


def _throughputs(ground: Ground, answers: Answers, options: argparse.Namespace) -> Part:
    rows = [_throughput(ground, answers, kind, options.backlog) for kind in ("hook", "slow")]
    claim = kit.verdict("deliveries/s to instant receivers", rows[0]["per_second"], 2500, at_least=True)
    return {"title": f"A backlog over {ENDPOINTS} endpoints", "columns": THROUGHPUT, "rows": rows}, [claim]


PARTS = {"latency": _latencies, "hang": _head_of_line, "throughput": _throughputs}


@contextmanager
def _staged(ground: Ground, answers: Answers, kinds: Sequence[str]) -> Iterator[tuple[Tracker, Receiver, Upstream]]:
    """An installation with one endpoint per entry of `kinds`, each with a tag of its own that decides what it gets."""
    upstream = Upstream(ground, answers.pending, latency_ms=200, tls=False, ended=answers.ended)
    receiver = Receiver(ground)
    tracker = Tracker(ground, f"webhooks{next(_numbers)}", redis_number=5, workers_poll=2)
    try:
        tracker.credential(upstream.url + "/single")
        for number, kind in enumerate(kinds):
            form = EndpointForm(
                url=f"{receiver.url}/{kind}/{number}",
                tags=[f"to-{number}"],
                events=["generation.cancelled", "generation.failed", "generation.completed"],
            )
            tracker.services.endpoints.create(tracker.project_id, form)
        yield tracker, receiver, upstream
    finally:
        tracker.close()
        receiver.stop()
        upstream.stop()


_numbers = itertools.count()


def _registered(tracker: Tracker, count: int, *, ended: bool = False) -> list[UUID]:
    """Generations for the endpoints in turn, none of them due for a poll. `ended`: the provider will say that they are completed."""
    begin = ENDED.decode() if ended else ""
    forms = [
        RegistrationForm(
            provider="luma", task_id=begin + one[len(begin) :], timeout="P30D", tags=[f"to-{n % ENDPOINTS}"]
        )
        for n, one in enumerate(new_ids(count))
    ]
    made: list[UUID] = []
    for i in range(0, count, 1000):
        outcomes = tracker.services.registration.register_many(tracker.project_id, forms[i : i + 1000])
        made += [outcome.generation.id for outcome in outcomes if hasattr(outcome, "generation")]
    tracker.connection.execute("UPDATE polls SET due_at = now() + interval '1 day'")
    return made


def _latency(
    ground: Ground, answers: Answers, rate: float, polls: float, seconds: float, *, case: str = "", but: str = ""
) -> dict[str, Any]:
    kinds = ["hang" if but.startswith("/hang") else "hook", *(["hook"] * (ENDPOINTS - 1))]
    with _staged(ground, answers, kinds) as (tracker, receiver, upstream):
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
    about = {
        "case": case or ("cancelled, while polling" if polls else "cancelled, alone"),
        "rate": rate,
        "polls_per_s": polled,
    }
    return {**about, **_latency_row(late), "missing": len(counted) - len(late)}


def _seen_by_polls(ground: Ground, answers: Answers, rate: float, polls: float, seconds: float) -> dict[str, Any]:
    """Generations that have ended are due for their poll one after the other, at `rate` a second."""
    with _staged(ground, answers, ["hook"] * ENDPOINTS) as (tracker, receiver, upstream):
        warm, wanted = (
            _registered(tracker, 2 * ENDPOINTS, ended=True),
            _registered(tracker, int(rate * seconds), ended=True),
        )
        if polls:
            poll_beside(tracker, polls)
        tracker.start("worker-webhook", "worker-default", "worker-poll", "beat")
        _due(tracker, warm, rate=20)
        _arrived(receiver, len(warm), 20.0)
        upstream.reset()
        began = time.monotonic()
        _due(tracker, wanted, rate)
        came = _arrived(receiver, len(wanted), seconds + 20.0)
        polled = upstream.stats()["polls"] / (time.monotonic() - began)
        committed = _committed(tracker)
    keys = [ids.public("gen", one) for one in wanted]
    late = [1000 * (came[one] - committed[one]) for one in keys if one in came]
    about = {"case": "seen by polls", "rate": rate, "polls_per_s": polled}
    return {**about, **_latency_row(late), "missing": len(keys) - len(late)}


def _due(tracker: Tracker, wanted: Sequence[UUID], rate: float) -> None:
    tracker.connection.execute(
        "UPDATE polls p SET due_at = now() + make_interval(secs => 1 + o.n / %s::float8)"
        " FROM unnest(%s::uuid[]) WITH ORDINALITY AS o (id, n) WHERE p.generation_id = o.id",
        (rate, list(wanted)),
    )


def _arrived(receiver: Receiver, count: int, seconds: float) -> dict[str, float]:
    """When each generation's webhook came first, once `count` have come or `seconds` are over."""
    came: dict[str, float] = {}

    def all_there() -> bool:
        for moment, _, generation in receiver.report():
            came.setdefault(generation, moment)
        return len(came) >= count

    kit.wait_for(all_there, seconds, pause=0.2)
    return came


def _committed(tracker: Tracker) -> Mapping[str, float]:
    """The moment of each completion's commit, on the clock that the receiver uses."""
    offset = time.time() - time.monotonic()
    rows = tracker.connection.execute(
        "SELECT generation_id, extract(epoch FROM pg_xact_commit_timestamp(xid::text::xid))::float8 FROM events"
        " WHERE type = 'generation.completed'"
    )
    return {ids.public("gen", key): at - offset for key, at in rows}


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


def _throughput(ground: Ground, answers: Answers, kind: str, backlog: int) -> dict[str, Any]:
    """All deliveries become due in one transaction (the account of their generations is deleted); then the worker starts."""
    with _staged(ground, answers, [kind] * ENDPOINTS) as (tracker, receiver, _):
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
