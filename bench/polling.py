"""CPU seconds per 1,000 polls, everything counted, and polls a second: this tracker against what people would write otherwise.

`python -m bench.polling [--rounds N] [--seconds S] [--only TEXT] [--scenario NAME] [--install-peers]`. They take turns.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from collections import defaultdict
from typing import Any

from bench import kit
from bench.contenders import ENVIRONMENTS, Contender, Ours, Stage, everyone, install_peers, peers_table, settle, stage
from bench.ground import laid, new_ids, pending_answer
from bench.proc import Meter
from bench.programs import Upstream

SCENARIOS = {"plain": (0.0, False), "200ms": (200.0, False), "tls": (0.0, True), "tls-200ms": (200.0, True)}
"""Name: upstream latency in ms, and whether over TLS."""
MOST = 24_000
"""Generations at most in one round: more only takes longer."""
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


def main() -> None:
    options = _options()
    if options.install_peers:
        install_peers()
    contenders = [c for c in everyone() if not options.only or any(text in c.name for text in options.only)]
    for contender in list(contenders):
        if why := contender.missing():
            kit.say(f"SKIPPED {contender.name}: {why}")
            contenders.remove(contender)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    raw: dict[str, Any] = {}
    with laid() as ground:
        template = pending_answer(ground)
        ids = new_ids(MOST)
        peers_url = ground.database("peers")
        peers_table(peers_url, ids)
        for name in options.scenario:
            latency, tls = SCENARIOS[name]
            upstream = Upstream(ground, template, latency_ms=latency, tls=tls)
            try:
                rounds = _scenario(name, stage(ground, upstream, ids, peers_url), contenders, options)
            finally:
                upstream.stop()
            raw[name] = rounds
            found[name] = {who: kit.medians(rows) for who, rows in rounds.items() if rows}
        for contender in contenders:
            if isinstance(contender, Ours):
                contender.close()
    tables = [
        {"title": f"Polling, {_words(name)}", "columns": COLUMNS, "rows": list(rows.values())}
        for name, rows in found.items()
    ]
    tables.append({"title": "Ratios of the same run", "columns": kit.CLAIMS, "rows": claims(found)})
    kit.finish("polling", tables, notes=_notes(contenders), raw={"rounds": raw, "peers": _peers()})


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long one contender's turn is")
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


def _scenario(
    name: str, at: Stage, contenders: list[Contender], options: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    rounds: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for number in range(options.rounds):
        for contender in contenders:
            rate = contender.rate[bool(at.upstream.latency_ms)]
            count = min(MOST, max(30, int(rate * options.seconds)))
            try:
                row = _turn(contender, at, count)
            except RuntimeError as wrong:
                kit.say(f"{name} {number + 1}: {contender.name} FAILED: {wrong}")
                continue
            kit.say(
                f"{name} {number + 1}/{options.rounds}: {contender.name}: {row['cpu']:.3f} CPU s/1,000, {row['polls_per_s']:,.0f} polls/s"
                f" ({row['polls']:,} polls; others {row['foreign']})"
            )
            rounds[contender.name].append(row)
    return rounds


def _turn(contender: Contender, at: Stage, count: int) -> dict[str, Any]:
    """Start, warm up, measure once, stop."""
    contender.start(at)
    try:
        _order(contender, at, min(contender.warm, count))
        contender.prepare(count)
        at.upstream.reset()
        meter = Meter({**contender.trees, **at.ground.servers, "upstream": at.upstream.pid})
        _order_now(contender, at, count)
        spent, foreign = meter.read()
    finally:
        contender.stop()
    return _row(contender, at.upstream, spent, foreign)


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


def _row(contender: Contender, upstream: Upstream, spent: dict[str, float], foreign: float) -> dict[str, Any]:
    stats = upstream.stats()
    polls, seconds = stats["polls"], max(1e-9, stats["last"] - stats["first"])
    outside = {name: spent.pop(name) * 1000 / polls for name in ("upstream", "postgres", "redis")}
    own = {name: round(seconds * 1000 / polls, 4) for name, seconds in spent.items()}
    cpu = sum(own.values()) + outside["postgres"] + outside["redis"]
    return {
        "name": contender.name,
        "cpu": cpu,
        "polls_per_s": polls / seconds,
        "own": sum(own.values()),
        **outside,
        "requests": stats["requests"] * 1000 / polls,
        "polls": polls,
        "most_in_flight": stats["most_in_flight"],
        "foreign": f"{foreign:.0%}",
        "parts": own,
    }


def claims(found: dict[str, dict[str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """What must hold, from the medians of this run; what was not run is left out."""
    rows: list[dict[str, Any]] = []

    def cpu(scenario: str, who: str) -> float | None:
        row = found.get(scenario, {}).get(who)
        return row["cpu"] if row else None

    def ratio(text: str, above: float | None, below: float | None, bound: float, *, at_least: bool = True) -> None:
        if above and below:
            rows.append(kit.verdict(text, above / below, bound, at_least=at_least))

    ours, batch = "this tracker", "this tracker, batch queries"
    for scenario in ("plain", "tls"):
        for pool in ("prefork 2", "threads 50", "gevent 100"):
            text = f"{scenario}: CPU of naive Celery ({pool}) over ours"
            ratio(text, cpu(scenario, f"naive Celery, {pool}"), cpu(scenario, ours), 30)
    for peer, bound in (("arq", 8), ("taskiq", 8), ("procrastinate", 22)):
        ratio(f"plain: CPU of {peer} over ours", cpu("plain", peer), cpu("plain", ours), bound)
    alone = cpu("plain", "libcurl alone, nothing kept")
    ratio("plain: our CPU over libcurl alone", cpu("plain", ours), alone, 5, at_least=False)
    ratio("our CPU at 200 ms over that at 0 ms", cpu("200ms", ours), cpu("plain", ours), 1.3, at_least=False)
    slow = found.get("200ms", {})
    bare = slow.get("asyncio and aiohttp, nothing kept", {}).get("polls_per_s")
    ratio("200 ms: our polls/s over bare asyncio", slow.get(ours, {}).get("polls_per_s"), bare, 0.8)
    ratio("plain: CPU of single queries over batch queries", cpu("plain", ours), cpu("plain", batch), 2)
    plain = found.get("plain", {})
    asked = plain.get(batch, {}).get("requests")
    ratio("plain: requests of single over batch queries", plain.get(ours, {}).get("requests"), asked, 45)
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
