"""What is logged by real workers: a generation's id leads to its whole story, its troubles included."""

from __future__ import annotations

import json
import logging
from uuid import UUID

import pytest

from tracker import wiring
from tracker.core import ids
from tracker.services.forms import RegistrationForm

from .conftest import Receiver, Simulator, Workers, until


def _told(workers: Workers, queue: str, generation: UUID) -> list[str]:
    """The messages about a generation in one worker's log."""
    lines = (workers.logs / f"{queue}.log").read_text().splitlines()
    objects = [json.loads(line) for line in lines if line.startswith("{")]
    return [line["message"] for line in objects if line.get("generation") == ids.public("gen", generation)]


def test_a_workers_log_names_the_generation_in_each_trouble(
    services: wiring.Services, simulator: Simulator, receiver: Receiver, workers: Workers, account: UUID
) -> None:
    receiver.secret = "whsec_" + "A" * 32  # so that it refuses what comes
    unseen, unkept = (
        simulator.call("generations", {"misbehaviour": fault, "queue": 0, "duration": 0})["id"]
        for fault in ("http502_2x", "file404")
    )
    form = RegistrationForm(provider="luma", task_id=unseen, webhook_url=receiver.url, download=["video"])
    forms = [form, form.model_copy(update={"task_id": unkept})]
    first, second = [r.generation.id for r in services.registration.register_many(account, forms)]

    until(lambda: len(_told(workers, "poll", first)) > 1, 30, "it was observed in the end")
    until(lambda: _told(workers, "webhook", first), 30, "its webhook was refused")
    until(lambda: _told(workers, "download", second), 30, "the other's copy could not be fetched")

    problem, ended = _told(workers, "poll", first)
    assert problem.startswith(f"{unseen}: not observed: http_error: HTTP 502")
    assert ended == f"{unseen}: completed"
    host = receiver.url.removesuffix("/hook")  # a path may hold a receiver's secret
    assert _told(workers, "webhook", first)[0] == f"webhook generation.completed to {host}: status 400"
    assert _told(workers, "download", second)[0].startswith("video-0: ")


def test_what_its_owner_does_is_logged_with_its_id(
    services: wiring.Services, account: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    key = services.registration.register(account, RegistrationForm(provider="luma", task_id="one")).generation.id
    services.generations.cancel(account, key)
    services.generations.cancel(account, key)
    services.generations.retrack(account, key)
    services.generations.delete(account, key)
    told = [(r.getMessage(), r.generation) for r in caplog.records if hasattr(r, "generation")]
    about = ids.public("gen", key)
    assert told == [(f"one: {what}", about) for what in ("registered", "cancelled", "tracked again", "forgotten")]
