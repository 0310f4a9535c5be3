"""The simulator's own calls below `/simulator/`: what tests, the demo and benchmarks steer it with. No bearer is asked for.

They are never counted, delayed or spoilt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, fields
from typing import Any

from tracker.simulator import files
from tracker.simulator.clock import rfc3339
from tracker.simulator.luma import unknown_path
from tracker.simulator.messages import BadRequestError, Reply, Request
from tracker.simulator.misbehaviour import MISBEHAVIOURS
from tracker.simulator.script import Wish
from tracker.simulator.world import World

# One call makes as many ids as a large benchmark needs; an answer of them stays under 5 MB.
_MOST_AT_ONCE = 100_000

_TEXTS = {"misbehaviour", "fail_reason", "prompt", "aspect_ratio"}


def answer(world: World, request: Request) -> Reply:
    """Any call below `/simulator/`."""
    name = request.path.removeprefix("/simulator/")
    if request.method == "GET" and name.startswith("generations/"):
        return _story(world, name.removeprefix("generations/"))
    call = _CALLS.get((request.method, name))
    return unknown_path(request) if call is None else call(world, request)


def _stats(world: World, request: Request) -> Reply:
    return Reply.json(world.stats.report(ids=request.parameters().get("ids") != "no"))


def _reset(world: World, _: Request) -> Reply:
    world.reset()
    return Reply.json({"reset": True})


def _faults(world: World, request: Request) -> Reply:
    world.conditions = world.conditions.changed(request.fields(), world.clock.now())
    return _conditions(world, request)


def _conditions(world: World, _: Request) -> Reply:
    return Reply.json({name: value for name, value in asdict(world.conditions).items() if name != "key"})


def _clock(world: World, request: Request) -> Reply:
    seconds = request.fields().get("advance", 0)
    if not isinstance(seconds, int | float) or seconds < 0:
        raise BadRequestError("advance must be seconds, not below 0")
    world.clock.advance(seconds)
    return Reply.json({"now": world.clock.now(), "time": rfc3339(world.clock.now())})


def _generations(world: World, request: Request) -> Reply:
    """Create one or `count` alike: `{"id": the first, "ids": all}`."""
    asked = request.fields()
    count = asked.pop("count", 1)
    if not isinstance(count, int) or not 1 <= count <= _MOST_AT_ONCE:
        raise BadRequestError(f"count must be 1 to {_MOST_AT_ONCE}")
    wish = _wish(asked)
    made = [world.lives.submit(wish).task_id for _ in range(count)]
    return Reply.json({"id": made[0], "ids": made}, 201)


def _wish(asked: dict[str, Any]) -> Wish:
    known = {field.name for field in fields(Wish)}
    for name, value in asked.items():
        if name not in known:
            raise BadRequestError(f"unknown field {name[:80]!r}; known are count, {', '.join(sorted(known))}")
        good = isinstance(value, str) if name in _TEXTS else isinstance(value, int | float) and value >= 0
        if not good and value is not None:
            raise BadRequestError(f"{name} must be {'a text' if name in _TEXTS else 'seconds, not below 0'}")
    return Wish(**{name: value for name, value in asked.items() if value is not None})


def _story(world: World, task_id: str) -> Reply:
    """The truth about one generation, whatever its answers say."""
    script = world.lives.find(task_id)
    if script is None:
        return Reply.json({"message": "no such generation"}, 404)
    birth, queries = script.birth, world.stats.queries.get(task_id)
    return Reply.json(
        {
            "id": task_id,
            "state": script.state(world.clock.now()),
            "misbehaviour": script.fault.kind.name if script.fault else None,
            "submitted_at": rfc3339(birth.start),
            "ends_at": None if script.has("neverends") else rfc3339(script.ends_at),
            "queue": round(birth.queue, 2),
            "duration": round(birth.duration, 2),
            "reason": world.lives.reason(script) if script.fails else None,
            "queries": list(queries or ()),
            "fetches": {name: world.stats.fetches[f"{task_id}/{name}"] for name in files.NAMES},
            "files": {name: files.sha256(task_id, name) for name in files.NAMES},
        }
    )


def _answers(world: World, request: Request) -> Reply:
    """Answer one path with exactly these bytes from now on; without `body` the path is itself again."""
    asked = request.fields()
    path, body, headers = asked.get("path"), asked.get("body"), asked.get("headers", {})
    if not isinstance(path, str) or not isinstance(body, str | None) or not isinstance(headers, dict):
        raise BadRequestError("path and body must be texts, headers an object")
    if body is None:
        world.answers.pop(path, None)
    else:
        media_type = str(asked.get("media_type", "application/json"))
        extra = tuple((str(name), str(text)) for name, text in headers.items())
        world.answers[path] = Reply(int(asked.get("status", 200)), body.encode(), media_type, extra)
    return Reply.json({"paths": sorted(world.answers)})


def _misbehaviours(_: World, __: Request) -> Reply:
    return Reply.json(
        [
            {"name": row.name, "scope": row.scope, "sentence": row.sentence, "times": row.times, "seconds": row.seconds}
            for row in MISBEHAVIOURS.values()
        ]
    )


_CALLS: dict[tuple[str, str], Callable[[World, Request], Reply]] = {
    ("GET", "stats"): _stats,
    ("POST", "reset"): _reset,
    ("GET", "faults"): _conditions,
    ("POST", "faults"): _faults,
    ("POST", "clock"): _clock,
    ("POST", "generations"): _generations,
    ("POST", "answers"): _answers,
    ("GET", "misbehaviours"): _misbehaviours,
}
