"""CPU seconds per 1,000 polls, everything counted, and polls a second: this tracker against what people would write otherwise.

`python -m bench.polling [--rounds N] [--seconds S] [--only TEXT] [--scenario NAME] [--install-peers]`. They take turns.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections import defaultdict
from contextlib import ExitStack
from statistics import median
from typing import Any, NamedTuple

from bench import kit
from bench.contenders import ENVIRONMENTS, Contender, Ours, Stage, everyone, install_peers, peers_table, settle, stage
from bench.ground import laid, new_ids, pending_answer
from bench.proc import Meter
from bench.programs import Upstream

SCENARIOS = {"plain": (0.0, False), "200ms": (200.0, False), "tls": (0.0, True), "tls-200ms": (200.0, True)}
"""Name: upstream latency in ms, and whether over TLS."""
MOST = 24_000
"""Generations at most in one round: more only takes longer."""
ORDERS = 4
"""Orders at most in one turn: who is done with that many generations in a second gets some more of them."""
NEARLY = 0.8
"""A turn that has lasted for this share of its time has no further order."""
PATIENCE = 30.0
"""Seconds after which a round ends with what was polled by then."""
COLUMNS = {
    "name": "contender",
    "polls_per_s": "polls/s",
    "cpu": "CPU s per 1,000",
    "own": "of it own processes",
    "postgres": "Postgres",
    "redis": "Redis",
    "requests": "requests per 1,000",
    "upstream": "(upstream's own)",
    "foreign": "others' share of the machine",
    "rounds": "rounds",
}
RATIOS = {**kit.CLAIMS, "each": "of each round"}

Rounds = dict[str, dict[str, dict[int, dict[str, Any]]]]
"""Scenario, contender, number of the round: what was measured."""


def main() -> None:
    options = _options()
    if options.install_peers:
        install_peers()
    contenders = [c for c in everyone() if not options.only or any(text in c.name for text in options.only)]
    for contender in list(contenders):
        if why := contender.missing():
            kit.say(f"SKIPPED {contender.name}: {why}")
            contenders.remove(contender)
    with laid() as ground:
        template = pending_answer(ground)
        ids = new_ids(MOST)
        peers_url = ground.database("peers")
        peers_table(peers_url, ids)
        with ExitStack() as open_:
            stages: dict[str, Stage] = {}
            for name in options.scenario:
                latency, tls = SCENARIOS[name]
                upstream = Upstream(ground, template, latency_ms=latency, tls=tls)
                open_.callback(upstream.stop)
                stages[name] = stage(ground, upstream, ids, peers_url)
            rounds = _rounds(stages, contenders, options)
        for contender in contenders:
            if isinstance(contender, Ours):
                contender.close()
    found = {
        name: {who: kit.medians(list(rows.values())) for who, rows in turns.items()} for name, turns in rounds.items()
    }
    tables = [
        {"title": f"Polling, {_words(name)}", "columns": COLUMNS, "rows": list(rows.values())}
        for name, rows in found.items()
    ]
    tables.append({"title": "Ratios, each round's own, and their medians", "columns": RATIOS, "rows": claims(rounds)})
    kit.finish("polling", tables, notes=_notes(contenders), raw={"rounds": rounds, "peers": _peers()})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=4.0, help="about how long one contender is measured in its turn"
    )
    parser.add_argument("--only", action="append", help="contenders whose name holds this text (repeatable)")
    parser.add_argument("--scenario", action="append", choices=SCENARIOS, help="default: plain, 200ms and tls")
    parser.add_argument("--install-peers", action="store_true", help="make bench/.venv-peers* first")
    options = parser.parse_args()
    options.scenario = options.scenario or ["plain", "200ms", "tls"]
    return options


def _words(name: str) -> str:
    latency, tls = SCENARIOS[name]
    return (
        f"upstream answers {f'after {latency:.0f} ms' if latency else 'at once'}, {'over TLS' if tls else 'plain HTTP'}"
    )


def _rounds(stages: dict[str, Stage], contenders: list[Contender], options: argparse.Namespace) -> Rounds:
    """Everyone's turns in every scenario, round by round: a machine is faster in one minute than in the next."""
    rounds: Rounds = {name: defaultdict(dict) for name in stages}
    for number in range(options.rounds):
        for name, at in stages.items():
            for contender in contenders:
                try:
                    row = _turn(contender, at, options.seconds)
                except RuntimeError as wrong:
                    kit.say(f"{name} {number + 1}: {contender.name} FAILED: {wrong}")
                    continue
                kit.say(
                    f"{name} {number + 1}/{options.rounds}: {contender.name}: {row['cpu']:.3f} CPU s/1,000,"
                    f" {row['polls_per_s']:,.0f} polls/s ({row['polls']:,} polls; others {row['foreign']})"
                )
                rounds[name][contender.name][number] = row
    return rounds


def _turn(contender: Contender, at: Stage, seconds: float) -> dict[str, Any]:
    """Start, warm up, measure one order after the other for about so long, stop."""
    count = min(MOST, max(30, int(contender.rate[bool(at.upstream.latency_ms)] * seconds)))
    orders: list[_Measured] = []
    contender.start(at)
    try:
        _order(contender, at, min(contender.warm, count))
        while len(orders) < ORDERS and sum(order.seconds for order in orders) < seconds * NEARLY:
            contender.prepare(count)
            at.upstream.reset()
            meter = Meter({**contender.trees, **at.ground.servers, "upstream": at.upstream.pid})
            _order_now(contender, at, count)
            orders.append(_Measured(*meter.read(), at.upstream.stats()))
            if not orders[-1].stats["polls"]:
                raise RuntimeError("it asked nothing within its patience")
    finally:
        contender.stop()
    return _row(contender, orders)


def _order(contender: Contender, at: Stage, count: int) -> None:
    at.upstream.reset()
    contender.prepare(count)
    _order_now(contender, at, count)
    if not at.upstream.stats()["polls"]:
        raise RuntimeError("it asked nothing within its patience")


def _order_now(contender: Contender, at: Stage, count: int) -> None:
    ends = time.monotonic() + PATIENCE
    contender.go(count)
    settle(lambda: at.upstream.stats()["polls"] >= count, ends - time.monotonic())
    settle(lambda: contender.recorded(count), min(3.0, max(0.0, ends - time.monotonic())))


class _Measured(NamedTuple):
    """One order: CPU seconds of each tree, the share that others had of the machine, and what the upstream counted."""

    spent: dict[str, float]
    foreign: float
    stats: dict[str, Any]

    @property
    def seconds(self) -> float:
        """From the first question to the last."""
        return max(1e-9, self.stats["last"] - self.stats["first"])


def _row(contender: Contender, orders: list[_Measured]) -> dict[str, Any]:
    polls = sum(order.stats["polls"] for order in orders)
    seconds = sum(order.seconds for order in orders)
    spent = {name: sum(order.spent[name] for order in orders) * 1000 / polls for name in orders[0].spent}
    outside = {name: spent.pop(name) for name in ("upstream", "postgres", "redis")}
    return {
        "name": contender.name,
        "cpu": sum(spent.values()) + outside["postgres"] + outside["redis"],
        "polls_per_s": polls / seconds,
        "own": sum(spent.values()),
        **outside,
        "requests": sum(order.stats["requests"] for order in orders) * 1000 / polls,
        "polls": polls,
        "most_in_flight": max(order.stats["most_in_flight"] for order in orders),
        "foreign": f"{max(order.foreign for order in orders):.0%}",
        "parts": {name: round(seconds, 4) for name, seconds in spent.items()},
    }


def claims(rounds: Rounds) -> list[dict[str, Any]]:
    """What must hold; what was not run is left out."""
    rows: list[dict[str, Any]] = []

    def ratio(
        text: str,
        above: tuple[str, str],
        below: tuple[str, str],
        bound: float,
        *,
        of: str = "cpu",
        at_least: bool = True,
    ) -> None:
        ones, others = (rounds.get(scenario, {}).get(who, {}) for scenario, who in (above, below))
        if found := [
            ones[number][of] / others[number][of]
            for number in sorted(ones.keys() & others.keys())
            if others[number][of]
        ]:
            rows.append(
                kit.verdict(text, median(found), bound, at_least=at_least) | {"each": ", ".join(map(kit.cell, found))}
            )

    ours, batch = "this tracker", "this tracker, batch queries"
    plain, slow = ("plain", ours), ("200ms", ours)
    for scenario in ("plain", "tls"):
        for pool in ("prefork 2", "threads 50", "gevent 100"):
            naive = f"naive Celery, {pool}"
            ratio(f"{scenario}: CPU of naive Celery ({pool}) over ours", (scenario, naive), (scenario, ours), 30)
    for peer, bound in (("arq", 8), ("taskiq", 8), ("procrastinate", 22)):
        ratio(f"plain: CPU of {peer} over ours", ("plain", peer), plain, bound)
    ratio("plain: our CPU over libcurl alone", plain, ("plain", "libcurl alone, nothing kept"), 5, at_least=False)
    ratio("our CPU at 200 ms over that at 0 ms", slow, plain, 1.3, at_least=False)
    bare = "asyncio and aiohttp, nothing kept"
    ratio("200 ms: our polls/s over bare asyncio", slow, ("200ms", bare), 0.8, of="polls_per_s")
    ratio("plain: CPU of single queries over batch queries", plain, ("plain", batch), 2)
    ratio("plain: requests of single over batch queries", plain, ("plain", batch), 45, of="requests")
    return rows


def _notes(contenders: list[Contender]) -> list[str]:
    present = {contender.name for contender in contenders}
    absent = [contender.name for contender in everyone() if contender.name not in present]
    counted = "CPU is that of every process of the contender (producers, brokers' clients, workers, beat), of Postgres and of Redis."
    upstream = (
        "The upstream answers from memory and is measured apart. It shares the cores: at 0 ms, polls/s are the pair's."
    )
    return [counted, upstream, *([f"Not run: {', '.join(absent)}."] if absent else [])]


def _peers() -> dict[str, list[str]]:
    found = {}
    for name, folder in ENVIRONMENTS.items():
        if folder.exists():
            freeze = [folder / "bin" / "python", "-m", "pip", "freeze"]
            found[name] = subprocess.run(freeze, capture_output=True, text=True, check=False).stdout.split()
    return found


if __name__ == "__main__":
    main()
