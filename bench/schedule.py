"""When to poll, simulated: fixed intervals, exponential backoff, our clock learning from zero, and the optimum that knows the law.

`python -m bench.schedule [--tasks N]`. Pure computation over bench/laws.py, with the product's own `Clock`; nothing is asked of anybody.
Every schedule meets the same tasks.
"""

from __future__ import annotations

import argparse
import heapq
import random
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, chain, count, repeat, takewhile
from math import exp, log
from statistics import fmean
from typing import Any

from bench import kit
from bench.laws import HORIZON, LAWS, Law, optimum
from tracker.core.schedule import Clock

PRICES = (0.06, 0.12, 0.25, 0.5, 1.0, 2.0, 5.0)
LONGEST = 60.0
"""Seconds: the product's default bound on a gap."""
EVERY = 5.0
"""Seconds between two arrivals of one model."""
UNSCORED = 200
"""First tasks of each model, from which the clock learns while they do not count."""
COLUMNS = {"policy": "schedule", "polls": "polls/task", "mean": "mean delay s", "p95": "p95", "p99": "p99"}

Seen = tuple[int, float]
"""Polls that one task got, and the seconds between its end and the poll that saw it (nan where it never ended)."""


def fixed(interval: float) -> list[float]:
    return list(accumulate(repeat(interval, int(HORIZON / interval) + 1)))


def backoff(longest: float) -> list[float]:
    """1, 2, 4 ... up to `longest` seconds."""
    doubling = takewhile(lambda gap: gap < longest, (2.0**i for i in count()))
    return list(accumulate(chain(doubling, repeat(longest, int(HORIZON / longest) + 1))))


def known(looks: Sequence[float], ends: Iterable[float]) -> list[Seen]:
    """What a schedule that is fixed beforehand makes of these tasks."""
    seen = []
    for end in ends:
        k = bisect_left(looks, min(end, HORIZON))
        at = min(looks[k], HORIZON) if k < len(looks) else HORIZON
        seen.append((k + 1, at - end if end <= HORIZON else float("nan")))
    return seen


def learned(ends: Sequence[float], price: float, dice: random.Random) -> list[Seen]:
    """What our clock makes of them: it begins knowing nothing, and hears of every answer at the moment it comes."""
    clock, seen = Clock(), [(0, float("nan"))] * len(ends)
    agenda: list[tuple[float, int, float, int]] = []  # (moment, task, age at the last look, polls so far)
    for task in range(len(ends)):
        heapq.heappush(agenda, (task * EVERY, task, -1.0, 0))
    while agenda:
        now, task, before, polls = heapq.heappop(agenda)
        age = now - task * EVERY
        if before >= 0.0:
            done = age >= ends[task]
            clock.observe(before, age, done=done)
            if done or age >= HORIZON:
                seen[task] = (polls, age - ends[task] if done else float("nan"))
                continue
        gap, roll = clock.next_gap(age, price, LONGEST), dice.random()
        gap = max(0.5, min(gap * (0.9 + 0.2 * roll), LONGEST * (0.9 + 0.1 * roll)))
        heapq.heappush(agenda, (task * EVERY + min(age + gap, HORIZON), task, age, polls + 1))
    return seen


def row(policy: str, seen: Sequence[Seen]) -> dict[str, Any]:
    delays = [delay for _, delay in seen if delay == delay]  # noqa: PLR0124 - nan is what differs from itself
    return {
        "policy": policy,
        "polls": fmean(polls for polls, _ in seen),
        "mean": fmean(delays),
        "p95": kit.quantile(delays, 0.95),
        "p99": kit.quantile(delays, 0.99),
    }


def cost(seen: Sequence[Seen], price: float) -> float:
    """Seconds per task: price x polls + delay."""
    return sum(price * polls + (delay if delay == delay else 0.0) for polls, delay in seen) / len(seen)  # noqa: PLR0124


def polls_at(delay: float, curve: Sequence[dict[str, Any]]) -> float:
    """Polls per task that the clock needs for this mean delay: between two prices, straight on logarithmic paper."""
    ordered = sorted(curve, key=lambda one: one["mean"])
    k = min(max(1, bisect_left([one["mean"] for one in ordered], delay)), len(ordered) - 1)
    (x0, y0), (x1, y1) = ((log(one["mean"]), log(one["polls"])) for one in ordered[k - 1 : k + 1])
    return exp(y0 + (y1 - y0) * (log(delay) - x0) / (x1 - x0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--tasks", type=int, default=2200, help=f"tasks of each model, of which the first {UNSCORED} do not count"
    )
    tasks = parser.parse_args().tasks
    began = time.process_time()
    ends = {law: [law.draw(random.Random(f"{law.name} {i}")) for i in range(tasks)] for law in LAWS}
    plain = {f"fixed {i:g} s": fixed(i) for i in (5, 10, 15)} | {"backoff 1, 2, 4 ... 30 s": backoff(30)}
    rows = [row(name, _fleet(ends, lambda _, e, looks=looks: known(looks, e))) for name, looks in plain.items()]
    curve, excess = [], []
    for price in PRICES:
        ours = {law: learned(e, price, random.Random(price))[UNSCORED:] for law, e in ends.items()}
        best = {law: known(optimum(law.ended_by(), price), e[UNSCORED:]) for law, e in ends.items()}
        curve.append(row(f"learned, price {price:g}", list(chain.from_iterable(ours.values()))))
        rows.append(row(f"optimum that knows the law, price {price:g}", list(chain.from_iterable(best.values()))))
        over = {law.name: 100 * (cost(ours[law], price) / cost(best[law], price) - 1) for law in LAWS}
        excess.append({"price": price, **over, "fleet": fmean(over.values())})
        kit.say(f"price {price:g}: {time.process_time() - began:.0f} s of CPU so far")
    title = f"Schedules over {len(LAWS)} models, {tasks - UNSCORED:,} tasks each"
    tables = [
        {"title": title, "columns": COLUMNS, "rows": rows[:4] + curve + rows[4:]},
        {"title": "Our cost over the optimum's, in %", "columns": {name: name for name in excess[0]}, "rows": excess},
        {"title": "Claims", "columns": kit.CLAIMS, "rows": claims(rows, curve, excess)},
    ]  # fmt: skip
    note = "Simulated: the shapes of the laws are assumed (bench/laws.py). Delay is from the end of a task to the poll that sees it."
    tail = "At equal mean delay our p99 is higher than a fixed interval's: early rejections and stragglers wait longer."
    kit.finish("schedule", tables, notes=[note, tail])


def _fleet(ends: dict[Law, list[float]], policy: Callable[[Law, list[float]], list[Seen]]) -> list[Seen]:
    return list(chain.from_iterable(policy(law, one[UNSCORED:]) for law, one in ends.items()))


def claims(
    rows: list[dict[str, Any]], curve: list[dict[str, Any]], excess: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    found = []
    for peer, bound in zip(rows[:4], (1.5, 1.5, 1.5, 2.0), strict=True):
        text = f"polls of {peer['policy']} over ours, at its mean delay"
        found.append(kit.verdict(text, peer["polls"] / polls_at(peer["mean"], curve), bound, at_least=True))
    worst = max(one["fleet"] for one in excess if one["price"] <= 1)
    found.append(
        kit.verdict("cost over the optimum, %, the fleet's mean, worst price up to 1", worst, 8, at_least=False)
    )
    return found


if __name__ == "__main__":
    main()
