"""Whether a budget of R requests a second holds over all worker processes, and is not left unused while work is due.

`python -m bench.budget [--seconds S]`. Read from the simulator's own history of requests, in tenths of a second.
"""

from __future__ import annotations

import argparse
from itertools import accumulate
from typing import Any

from bench import kit
from bench.ground import Ground, Tracker, laid
from bench.programs import Simulator

WORKERS = 4
WINDOW = 10.0
"""Seconds over which the rate is judged."""
WARM = 5.0
"""Seconds at the start that the mean leaves out: the workers take their first work."""
COLUMNS = {
    "case": "case",
    "budget": "R, requests/s",
    "highest": f"highest {WINDOW:g} s, of R",
    "later": "the same, without the start",
    "mean": "mean, of R",
    "requests": "requests",
    "asked": "generations asked about /s",
    "in_flight": "most in flight",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=40.0)
    seconds = parser.parse_args().seconds
    with laid() as ground:
        rows = [
            _case(ground, "single queries", 100, 1, seconds),
            _case(ground, "single queries, slow upstream", 40, 1, seconds, "--latency-ms", "500"),
            _case(ground, "batch queries", 8, 50, seconds),
        ]
    claims = []
    for row in rows:
        claims.append(kit.verdict(f"{row['case']}: highest window over R", row["highest"], 1.05, at_least=False))
        claims.append(kit.verdict(f"{row['case']}: mean over R", row["mean"], 0.95, at_least=True))
    tables = [
        {"title": f"A budget over {WORKERS} worker processes", "columns": COLUMNS, "rows": rows},
        {"title": "Claims", "columns": kit.CLAIMS, "rows": claims},
    ]
    kit.finish("budget", tables, notes=["A batch query costs one of the budget, whatever it asks about."])


def _case(ground: Ground, case: str, budget: float, per_request: int, seconds: float, *options: str) -> dict[str, Any]:
    kit.say(f"{case}: R = {budget:g}")
    name = case.replace(" ", "_").replace(",", "")
    simulator = Simulator(ground, "--batch", "none" if per_request == 1 else "array", *options)
    tracker = Tracker(ground, name, redis_number=5, workers_poll=WORKERS)
    try:
        tracker.credential(simulator.url, requests_per_second=budget, concurrency=1000)
        # Half as many again as the budget can ask about: something is due throughout.
        wanted = int(1.5 * budget * per_request * (seconds + WARM))
        tracker.register(simulator.call("generations", {"count": wanted, "queue": 0, "duration": 100_000})["ids"])
        tracker.connection.execute("UPDATE generations SET state = 'processing', provider_status = 'processing'")
        tracker.start("worker-poll", "worker-default", "beat")
        if not kit.wait_for(lambda: simulator.call("stats?ids=no")["requests"] > 0, 30):
            raise RuntimeError(f"nothing was asked\n{tracker.said()}")
        simulator.call("reset", {})
        began = kit.time.monotonic()
        kit.rest_until(began + WARM + seconds)
        stats = simulator.call("stats")
    finally:
        tracker.close()
        simulator.stop()
    polls = sum(stats["queries"].values()) / (WARM + seconds)
    return {
        "case": case,
        "budget": budget,
        "asked": polls,
        **judged(stats["history"], budget, WARM + seconds),
        "in_flight": stats["most_in_flight"],
    }


def judged(history: list[list[float]], budget: float, seconds: float) -> dict[str, Any]:
    """The highest window and the mean, each as a share of the budget, from [second, requests] in tenths of a second."""
    tenths = [0] * (int(seconds * 10) + 1)
    for at, requests in history:
        if round(at * 10) < len(tenths):
            tenths[round(at * 10)] += int(requests)
    width = int(WINDOW * 10)
    sums = [0, *accumulate(tenths)]
    windows = [sums[i + width] - sums[i] for i in range(len(tenths) - width)]
    counted = tenths[int(WARM * 10) : -1]
    return {
        "highest": max(windows) / (WINDOW * budget),
        "later": max(windows[int(WARM * 10) :]) / (WINDOW * budget),
        "mean": sum(counted) / (len(counted) / 10 * budget),
        "requests": sum(tenths),
    }


if __name__ == "__main__":
    main()
