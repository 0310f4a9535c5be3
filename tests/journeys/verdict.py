"""What must hold after any disaster: everything that was acknowledged is there, ended rightly, and was told once."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from itertools import pairwise
from typing import Any

from tests.journeys.installation import Installation
from tracker.core.lifecycle import NEXT


def check(world: Installation) -> dict[str, int]:
    """Assert everything that must hold after any disaster; returns figures for people."""
    found = {g.task_id: g for g in world.everything()}
    assert set(world.tally.registered) == set(found), "what was acknowledged is there, and nothing else"
    moves = {task: world.services.generations.transitions(world.project, g.id) for task, g in found.items()}
    for task, g in found.items():
        states = [m.to_state for m in moves[task]]
        assert g.state == ("failed" if task.startswith("failed") else "completed"), (task, g.state, g.error)
        assert all(after in NEXT[before] for before, after in pairwise(states)), (task, states)
        assert [m.from_state for m in moves[task][1:]] == states[:-1], task
        assert len({m.sequence for m in moves[task]}) == len(moves[task]) == len(set(states)), task
        _check_copies(world, g)
    return {"generations": len(found), "polls": sum(g.polls for g in found.values()), **_check_webhooks(world, found)}


def _check_copies(world: Installation, g: Any) -> None:
    assert len(g.artifacts) == (2 if g.state == "completed" else 0)
    truth = world.simulator.call(f"generations/{g.task_id}")["files"] if g.artifacts else {}
    for copy in g.artifacts:
        stored = world.services.artifacts.find(world.project, g.id, copy.kind, copy.index)
        content = b"".join(world.services.artifacts.read(stored))
        expected = truth["video.mp4" if copy.kind == "video" else "thumbnail.jpg"]
        assert hashlib.sha256(content).hexdigest() == copy.sha256 == expected, g.task_id


def _check_webhooks(world: Installation, found: dict[str, Any]) -> dict[str, int]:
    """Each event arrived; what arrived twice carries one id and one body."""
    receiver = world.receiver
    assert receiver.wrong == []
    bodies: dict[str, set[str]] = defaultdict(set)
    by_generation: dict[str, Counter[str]] = defaultdict(Counter)
    for key, event in zip(receiver.ids, receiver.got, strict=True):
        if key not in bodies:
            by_generation[event["data"]["task_id"]][event["type"]] += 1
        bodies[key].add(json.dumps(event, sort_keys=True))
    assert all(len(same) == 1 for same in bodies.values()), "one id, one body"
    for task, g in found.items():
        expected = {"generation.failed": 1}
        if g.state == "completed":
            expected = {"generation.completed": 1, "artifact.stored": 2, "artifacts.done": 1}
        assert by_generation[task] == expected, task
    return {"events": len(bodies), "sent twice": len(receiver.ids) - len(bodies)}
