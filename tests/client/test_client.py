"""What the Python client promises, against the real API."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tracker.client import ApiError, SignatureError, Tracker, UnreachableError, WaitTimeoutError, verify_webhook
from tracker.core import signing
from tracker.errors import ConflictError, InvalidError, NotFoundError, UnauthorizedError


def test_registering_once_twice_and_differently(tracker: Tracker) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    made = tracker.register(
        "luma", "task-1", tags=["a"], timeout=timedelta(hours=1), submitted_at=at, metadata={"n": 1}
    )
    assert (made["state"], made["tags"], made["submitted_at"]) == ("registered", ["a"], "2026-01-02T03:04:05.000000Z")
    assert tracker.register("luma", "task-1")["id"] == made["id"]
    with pytest.raises(ConflictError) as conflict:
        tracker.register("luma", "task-1", tags=["b"])
    assert (conflict.value.id, conflict.value.problems[0].field) == (made["id"], "tags")


def test_errors_have_types(tracker: Tracker, api: Any) -> None:
    with pytest.raises(InvalidError) as invalid:
        tracker.register("luma", "two words", colour="red")
    assert {problem.field for problem in invalid.value.problems} >= {"colour"}
    with pytest.raises(NotFoundError):
        tracker.get("gen_nothing")
    with pytest.raises(NotFoundError):
        tracker.get("../../healthz")
    with Tracker(api.url, "trk_" + "0" * 40) as stranger, pytest.raises(UnauthorizedError):
        stranger.get("gen_nothing")
    with Tracker(api.url + "/elsewhere", "trk_x") as lost, pytest.raises((NotFoundError, ApiError)):
        lost.register("luma", "task-1")


def test_many_registrations_keep_their_order(tracker: Tracker) -> None:
    asked = [{"provider": "luma", "task_id": f"task-{n}" if n != 700 else "two words"} for n in range(1_400)]
    results = tracker.register_many(iter(asked))
    assert [result["status"] for result in results] == [201] * 700 + [422] + [201] * 699
    assert results[1_399]["generation"]["task_id"] == "task-1399"
    assert results[700]["problem"]["errors"][0]["field"].endswith("task_id")


def test_iterating_goes_over_pages(tracker: Tracker) -> None:
    tracker.register_many(
        {"provider": "luma", "task_id": f"task-{n}", "tags": ["even"] if n % 2 == 0 else []} for n in range(25)
    )
    found = [g["task_id"] for g in tracker.generations(limit=10)]
    assert sorted(found) == sorted(f"task-{n}" for n in range(25))
    assert len(list(tracker.generations(tag="even", state=["registered", "queued"], limit=5))) == 13
    assert list(tracker.generations(state="failed")) == []


def test_waiting_answers_as_soon_as_it_is_done(tracker: Tracker, api: Any) -> None:
    made = tracker.register("luma", "task-1")
    timer = threading.Timer(1.0, api.complete, [made["id"]])
    timer.start()
    began = time.monotonic()
    done = tracker.wait(made["id"], timeout=30)
    timer.join()
    assert (done["state"], done["outputs"][0]["kind"]) == ("completed", "video")
    assert time.monotonic() - began < 10


def test_waiting_sits_out_a_restart(tracker: Tracker, api: Any) -> None:
    made = tracker.register("luma", "task-1")

    def restart() -> None:
        api.kill()
        api.complete(made["id"])
        api.start()

    timer = threading.Timer(0.5, restart)
    timer.start()
    assert tracker.wait(made["id"], timeout=60)["state"] == "completed"
    timer.join()


def test_waiting_ends_with_an_error_that_knows_the_last_state(tracker: Tracker) -> None:
    made = tracker.register("luma", "task-1")
    with pytest.raises(WaitTimeoutError) as late:
        tracker.wait(made["id"], timeout=1.2)
    assert late.value.generation is not None
    assert late.value.generation["id"] == made["id"]
    assert isinstance(late.value, TimeoutError)


def test_cancelling(tracker: Tracker, api: Any) -> None:
    made = tracker.register("luma", "task-1")
    assert tracker.cancel(made["id"])["state"] == "cancelled"
    assert tracker.wait(made["id"], timeout=5)["state"] == "cancelled"
    other = tracker.register("luma", "task-2")
    api.complete(other["id"])
    with pytest.raises(ConflictError):
        tracker.cancel(other["id"])


def test_nobody_there() -> None:
    with (
        Tracker("http://127.0.0.1:9", "trk_x", patience=0.3) as tracker,
        pytest.raises(UnreachableError, match="ConnectionError"),
    ):
        tracker.get("gen_1")


def test_webhooks_are_verified_as_the_independent_library_does() -> None:
    secret, body, at = signing.new_secret(), b'{"type":"ping","timestamp":"x","data":{}}', int(time.time())
    headers = signing.headers([secret], "evt_1", at, body)
    assert verify_webhook(secret, headers, body) == Webhook(secret).verify(body, headers)
    assert verify_webhook(secret, {name.title(): value for name, value in headers.items()}, body)["type"] == "ping"
    with pytest.raises(SignatureError):
        verify_webhook(signing.new_secret(), headers, body)
    with pytest.raises(SignatureError):
        verify_webhook(secret, headers, body + b" ")
    with pytest.raises(SignatureError):
        verify_webhook(secret, signing.headers([secret], "evt_1", at - 600, body), body)
    with pytest.raises(SignatureError):
        verify_webhook(secret, {}, body)
