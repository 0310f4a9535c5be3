# ruff: noqa: SLF001 - the stage is that of another benchmark
"""Downloads: speed and memory for one large file beside `curl | tee | sha256sum`, and what eight at once cost webhooks and polls.

`python -m bench.downloads [--size BYTES] [--seconds S] [--rounds N]`. Needs about five times the size on disk.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text

from bench import kit, proc, webhooks
from bench.ground import Ground, Tracker, ended_answer, laid, new_ids, pending_answer, poll_beside
from bench.programs import Program
from tracker import bell
from tracker.core.generation import Output
from tracker.embedded.ports import free_port, release
from tracker.services.forms import RegistrationForm
from tracker.store import artifacts, db

MB = 1024 * 1024
AT_ONCE = 8
LINK_RATE = 12.5 * MB
"""Bytes a second of each of the eight: together a gigabit."""
SPEED = {"who": "who", "mb_per_s": "MB/s", "seconds": "s", "memory_mb": "MB above idle"}
BESIDE = {
    "case": "case",
    "p50": "webhook p50 ms",
    "p95": "p95 ms",
    "p99": "p99 ms",
    "poll_lag": "poll lag p95 s",
    "mb_per_s": "MB/s stored",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024 * MB)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with laid() as ground:
        rounds = [(_curl(ground, options.size), _one(ground, options.size, n)) for n in range(options.rounds)]
        curl, ours = (kit.medians([pair[i] for pair in rounds]) for i in (0, 1))
        answers = webhooks.Answers(pending_answer(ground), ended_answer(ground))
        beside = [
            _beside(ground, answers, options.seconds, rate, case)
            for case, rate in (("no download", None), (f"{AT_ONCE} at once, a gigabit together", LINK_RATE),
                               (f"{AT_ONCE} at once, as fast as they can", 0.0))
        ]  # fmt: skip
    quiet, loaded = beside[0], beside[1]
    claims = [
        kit.verdict("speed over curl | tee | sha256sum", ours["mb_per_s"] / curl["mb_per_s"], 0.8, at_least=True),
        kit.verdict("MB of memory above idle", ours["memory_mb"], 80, at_least=False),
        kit.verdict("webhook p95 with eight downloads over without", loaded["p95"] / quiet["p95"], 2, at_least=False),
        kit.verdict(
            "poll lag with eight downloads over without (at least 0.1 s)",
            max(loaded["poll_lag"], 0.1) / max(quiet["poll_lag"], 0.1), 2, at_least=False,
        ),
    ]  # fmt: skip
    tables = [
        {"title": f"One file of {options.size // MB} MB, to the same disk", "columns": SPEED, "rows": [curl, ours]},
        {"title": "Webhooks (50/s) and polls (200/s) beside", "columns": BESIDE, "rows": beside},
        {"title": "Claims", "columns": kit.CLAIMS, "rows": claims},
    ]
    kit.finish("downloads", tables, notes=["Ours ends with fsync of file and folder, a note beside it and the commit."])


@contextmanager
def _films(ground: Ground, size: int, rate: float = 0.0) -> Iterator[str]:
    place, port = ground.folder / "film.mp4", free_port(18400)
    wish = {"--size": size, "--file": place, "--port": port, "--rate": rate}
    command = [sys.executable, "-m", "bench.fileserver", *(str(part) for pair in wish.items() for part in pair)]
    program = Program(command, log=ground.folder / "films.log", ready=b"ready")
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        program.stop()
        release(port)
        place.unlink(missing_ok=True)


def _curl(ground: Ground, size: int) -> dict[str, Any]:
    with _films(ground, size) as url:
        out = ground.folder / "curl.mp4"
        began = time.monotonic()
        subprocess.run(f"curl -s {url}/film | tee {out} | sha256sum", shell=True, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - began
        out.unlink()
    return {"who": "curl | tee file | sha256sum", "mb_per_s": size / MB / seconds, "seconds": seconds}


def _wish(tracker: Tracker, urls: Sequence[str]) -> None:
    """Completed generations whose copies are wanted now."""
    forms = [RegistrationForm(provider="luma", task_id=one, download=True) for one in new_ids(len(urls))]
    made = tracker.services.registration.register_many(tracker.project_id, forms)
    keys = [outcome.generation.id for outcome in made if hasattr(outcome, "generation")]
    with tracker.services.database.transaction() as tx:
        tx.execute(text("DELETE FROM polls WHERE generation_id = ANY (:ids)"), {"ids": keys})
        tx.execute(
            text(
                "UPDATE generations SET state = 'completed', finished_at = now(),"
                ' outputs = \'[{"kind": "video", "index": 0, "url": "https://cdn.example/x"}]\' WHERE id = ANY (:ids)'
            ),
            {"ids": keys},
        )
        for key, url in zip(keys, urls, strict=True):
            output = Output("video", 0, url)
            artifacts.wish(tx, project_id=tracker.project_id, generation_id=key, outputs=[output], now=db.now(tx))
    tracker.services.bell.ring(bell.FETCH, bell.DOWNLOAD, because="bench")


def _stored(tracker: Tracker) -> tuple[int, int]:
    row = tracker.connection.execute(
        "SELECT count(*), coalesce(sum(size), 0)::bigint FROM artifacts WHERE state = 'stored'"
    ).fetchone()
    return (0, 0) if row is None else (row[0], row[1])


def _one(ground: Ground, size: int, number: int) -> dict[str, Any]:
    """The first, small file warms the worker up: what is above idle is the large one's alone."""
    kit.say(f"one large file, round {number + 1}")
    tracker = Tracker(ground, f"download{number}", redis_number=6, workers_download=1)
    try:
        tracker.credential("http://127.0.0.1:9")
        tracker.start("worker-download")
        with _films(ground, MB) as url:
            _wish(tracker, [f"{url}/small"])
            if not kit.wait_for(lambda: _stored(tracker)[0] == 1, 30):
                raise RuntimeError(tracker.said())
        idle, peak = sum(proc.memory(tracker.trees["worker-download"])), 0.0
        with _films(ground, size) as url:
            began = time.monotonic()
            _wish(tracker, [f"{url}/large"])
            while _stored(tracker)[0] < 2:
                peak = max(peak, sum(proc.memory(tracker.trees["worker-download"])))
                time.sleep(0.05)
            seconds = time.monotonic() - began
    finally:
        shutil.rmtree(tracker.settings.artifacts.removeprefix("file://"), ignore_errors=True)
        tracker.close()
    return {"who": "ours", "mb_per_s": size / MB / seconds, "seconds": seconds, "memory_mb": peak - idle}


def _beside(ground: Ground, answers: webhooks.Answers, seconds: float, rate: float | None, case: str) -> dict[str, Any]:
    size = 192 * MB
    kit.say(f"beside: {case}")
    with webhooks._staged(ground, answers, ["hook"] * webhooks.ENDPOINTS) as (tracker, receiver, _upstream):
        wanted = webhooks._registered(tracker, int(50 * seconds))
        warm = webhooks._registered(tracker, 2 * webhooks.ENDPOINTS)
        poll_beside(tracker, 200)
        tracker.start("worker-webhook", "worker-default", "worker-poll", "worker-download", "beat")
        commits = webhooks.Commits(tracker)
        webhooks._commit(commits, warm, rate=20)
        webhooks._collected(receiver, commits, "", 10.0)
        commits.moments.clear()
        lags: list[float] = []
        done = threading.Event()
        watching = threading.Thread(target=_watch_lag, args=(tracker, lags, done))
        with _films(ground, size, rate or 0.0) as url:
            if rate is not None:
                _wish(tracker, [f"{url}/{n}" for n in range(12 * AT_ONCE)])
                kit.wait_for(lambda: _under_way(tracker) >= AT_ONCE, 20)
            watching.start()
            before, began = _stored(tracker)[1] + _partial(tracker), time.monotonic()
            webhooks._commit(commits, wanted, 50)
            speed = (_stored(tracker)[1] + _partial(tracker) - before) / MB / (time.monotonic() - began)
            came = webhooks._collected(receiver, commits, "", 10.0)
            done.set()
            watching.join()
            tracker.stop()
        late = [1000 * (came[one][0] - at) for one, at in commits.moments.items() if one in came]
        shutil.rmtree(tracker.settings.artifacts.removeprefix("file://"), ignore_errors=True)
    row = {name: kit.quantile(late, share) for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))}
    return {"case": case, **row, "poll_lag": kit.quantile(lags, 0.95), "mb_per_s": speed}


def _under_way(tracker: Tracker) -> int:
    row = tracker.connection.execute("SELECT count(*) FROM artifacts WHERE lease_until IS NOT NULL").fetchone()
    return row[0] if row else 0


def _partial(tracker: Tracker) -> int:
    row = tracker.connection.execute(
        "SELECT coalesce(sum(bytes_done), 0)::bigint FROM artifacts WHERE state = 'pending'"
    ).fetchone()
    return row[0] if row else 0


def _watch_lag(tracker: Tracker, lags: list[float], done: threading.Event) -> None:
    while not done.wait(0.2):
        lags.append(float(tracker.services.health.ready()["lag"]))


if __name__ == "__main__":
    main()
