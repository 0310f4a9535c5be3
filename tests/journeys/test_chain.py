"""The main job, whole: ids registered, polled by Celery workers, transitions stored, webhooks verified by others, files kept."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from uuid import UUID

from tracker import wiring
from tracker.core.lifecycle import NEXT
from tracker.services.forms import RegistrationForm
from tracker.store.generations import Filters

from .conftest import Receiver, Simulator, Workers, until

COUNT = 50
SEED = Path(__file__).parents[1] / "providers" / "recorded" / "luma"


def _register(services: wiring.Services, project_id: UUID, ids: list[str], receiver: Receiver) -> None:
    forms = [
        RegistrationForm(provider="luma", task_id=task, webhook_url=receiver.url, download=["video"]) for task in ids
    ]
    services.registration.register_many(project_id, forms)


def _all_ended(services: wiring.Services, project_id: UUID) -> list[Any]:
    found, _ = services.generations.page(project_id, Filters(), 200)
    done = all(g.finished_at and all(a.state == "stored" for a in g.artifacts) for g in found)
    return found if done else []


def test_fifty_generations_through_real_workers(
    services: wiring.Services, simulator: Simulator, receiver: Receiver, workers: Workers, account: UUID
) -> None:
    good = simulator.call("generations", {"count": COUNT - 5, "queue": 1, "duration": 4})["ids"]
    bad = simulator.call(
        "generations",
        {"count": 5, "queue": 1, "duration": 2, "misbehaviour": "failed", "fail_reason": "the lights went out"},
    )
    _register(services, account, [*good, *bad["ids"]], receiver)

    ended = until(lambda: _all_ended(services, account), 60, "all generations ended and stored")
    until(lambda: len(receiver.of("artifacts.done")) == COUNT - 5, 20, "every artifacts.done arrived")

    by_task = {g.task_id: g for g in ended}
    assert {by_task[task].state for task in good} == {"completed"}
    assert {by_task[task].state for task in bad["ids"]} == {"failed"}
    assert {by_task[task].error.message for task in bad["ids"]} == {"the lights went out"}
    for g in ended:
        moves = services.generations.transitions(account, g.id)
        assert [m.sequence for m in moves] == sorted({m.sequence for m in moves})
        assert all(m.to_state in NEXT[m.from_state] for m in moves[1:])

    assert receiver.wrong == []
    assert len(receiver.of("generation.completed")) == COUNT - 5
    assert len(receiver.of("generation.failed")) == 5
    assert len(receiver.ids) == len(set(receiver.ids)), "nothing failed, so nothing may arrive twice"

    for task in good:
        truth = simulator.call(f"generations/{task}")
        (copy,) = by_task[task].artifacts
        found = services.artifacts.find(account, by_task[task].id, "video", 0)
        stored = b"".join(services.artifacts.read(found))
        assert hashlib.sha256(stored).hexdigest() == copy.sha256 == truth["files"]["video.mp4"]
    assert not list(services.settings.home.rglob("*.part"))


def test_the_seed_answer_byte_for_byte_goes_through_the_chain(
    services: wiring.Services, simulator: Simulator, receiver: Receiver, workers: Workers, account: UUID
) -> None:
    body = (SEED / "completed.json").read_text()
    task = "4665a07c-7641-4809-a133-10786201bb56"
    simulator.call("answers", {"path": f"/luma/generations/{task}", "body": body})
    _ = services.registration.register(
        account, RegistrationForm(provider="luma", task_id=task, webhook_url=receiver.url)
    )
    until(lambda: receiver.of("generation.completed"), 30, "the completed webhook arrived")

    (g,), _next = services.generations.page(account, Filters(), 10)
    assert g.state == "completed"
    assert [(o.kind, o.width, o.height) for o in g.outputs] == [
        ("video", 1360, 752), ("video_raw", 1360, 752), ("thumbnail", 1360, 752), ("last_frame", 1360, 752)
    ]  # fmt: skip
    assert g.outputs[0].url.startswith("https://storage.cdn-luma.com/")
    assert services.generations.answer(account, g.id) == body.encode(), "the provider's own body is kept as it came"
    assert receiver.of("generation.completed")[0]["data"]["outputs"][1]["duration"] == 5.041667
