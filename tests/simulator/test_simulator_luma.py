"""The Luma paths: the documented shape, states by the clock, errors, batches, and the same answers after a restart."""

from __future__ import annotations

import re

import pytest

# The documented answer's fields in their order (a list of names below each object).
VIDEO = {"url": None, "width": None, "height": None, "download_url": None}
THUMBNAIL = {"url": None, "width": None, "height": None, "palette": {"grid": None}, "media_type": None}
RAW = {"url": None, "width": None, "height": None, "duration": None, "media_type": None}
FRAME = {"url": None, "width": None, "height": None, "palette": None, "media_type": None}
REQUEST = {"prompt": None, "aspect_ratio": None}
DOCUMENTED = {
    "id": None,
    "state": None,
    "video": VIDEO,
    "request": REQUEST,
    "artifact": {"video": VIDEO, "thumbnail": THUMBNAIL, "video_raw": RAW, "created_at": None, "last_frame": FRAME},
    "thumbnail": THUMBNAIL,
    "video_raw": RAW,
    "created_at": None,
    "last_frame": FRAME,
}
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def names(content):
    """The field names in their order, all the way down."""
    return [(key, names(value)) for key, value in content.items()] if isinstance(content, dict) else None


def test_a_completed_answer_has_the_documented_fields_in_their_order(relay):
    task_id = relay.create(duration=0, prompt="cat dance")
    answer = relay.query(task_id)
    found = answer.json()
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert names(found) == names(DOCUMENTED)
    assert (found["id"], found["state"]) == (task_id, "completed")
    assert found["request"] == {"prompt": "cat dance", "aspect_ratio": "16:9"}
    assert found["artifact"]["created_at"] == "0001-01-01T00:00:00Z"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", found["created_at"])
    assert found["video"]["url"] == found["video"]["download_url"] == f"{relay.url}/files/{task_id}/video.mp4"
    assert found["last_frame"]["palette"] is None
    assert found["artifact"]["video_raw"] == found["video_raw"]


def test_a_submit_answers_pending_without_fields_that_cannot_exist_yet(relay):
    answer = relay.post("/luma/generations", {"user_prompt": "a dog", "aspect_ratio": "9:16", "loop": False})
    found = answer.json()
    assert answer.status_code == 200
    assert list(found) == ["id", "state", "request", "created_at"]
    assert found["state"] == "pending"
    assert found["request"] == {"prompt": "a dog", "aspect_ratio": "9:16"}
    assert UUID4.fullmatch(found["id"])
    assert relay.query(found["id"]).json() == found


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"user_prompt": ""},
        {"user_prompt": 7},
        {"user_prompt": "x", "aspect_ratio": "1:7"},
        {"user_prompt": "x", "simulate": "nonsense"},
        [],
    ],
)
def test_a_wrong_submit_is_refused_in_the_relays_form(relay, body):
    answer = relay.post("/luma/generations", body)
    assert answer.status_code == 400
    assert list(answer.json()) == ["code", "message", "data"]
    assert answer.json()["code"] == "invalid_request"


def test_states_follow_the_clock_exactly(relay):
    task_id = relay.create(queue=100, duration=500)
    assert relay.query(task_id).json()["state"] == "pending"
    relay.advance(101)
    assert relay.query(task_id).json()["state"] == "processing"
    relay.advance(480)
    assert relay.query(task_id).json()["state"] == "processing"
    relay.advance(20)
    assert relay.query(task_id).json()["state"] == "completed"


def test_a_generation_may_have_been_submitted_in_the_past(relay):
    assert relay.query(relay.create(duration=100, age=99)).json()["state"] == "processing"
    assert relay.query(relay.create(duration=100, age=100)).json()["state"] == "completed"


def test_a_bearer_is_needed(relay, run_simulator):
    task_id = relay.create(duration=0)
    for authorization in ("", "Bearer", "Bearer ", "Basic c2s6"):
        answer = relay.query(task_id, headers={"Authorization": authorization})
        assert answer.status_code == 401
        assert answer.json() == {"error": {"message": "Invalid token", "type": "new_api_error", "code": ""}}
    with run_simulator("--key", "sk-right") as strict:
        assert strict.query(task_id).status_code == 401
        assert strict.query(task_id, headers={"Authorization": "Bearer sk-right"}).status_code == 200


def test_an_unknown_id_is_answered_in_either_form(relay):
    for unknown in ("nope", "4665a07c-7641-4809-a133-10786201bb56", "x-" + relay.create(duration=0)):
        answer = relay.query(unknown)
        assert (answer.status_code, answer.json()) == (
            400,
            {"code": "task_not_exist", "message": "task_not_exist", "data": None},
        )
    relay.post("/simulator/faults", {"not_found": 404})
    answer = relay.query("nope")
    assert (answer.status_code, answer.json()["code"]) == (404, "task_not_exist")


def test_a_batch_is_a_bare_array_in_the_order_asked_without_unknown_ids(relay):
    done, waiting = relay.create(duration=0), relay.create(duration=100)
    answer = relay.post("/luma/tasks", {"ids": [waiting, "nope", done]})
    assert [(found["id"], found["state"]) for found in answer.json()] == [(waiting, "processing"), (done, "completed")]
    assert names(answer.json()[1]) == names(DOCUMENTED)
    assert relay.stats()["queries"] == {waiting: 1, "nope": 1, done: 1}


def test_a_batch_may_come_in_the_relays_envelope(relay):
    relay.post("/simulator/faults", {"batch": "envelope"})
    done, failed = relay.create(duration=0), relay.create(duration=0, fail_reason="too dark")
    answer = relay.post("/luma/tasks", {"ids": [done, failed]}).json()
    assert answer["code"] == "success"
    assert [row["status"] for row in answer["data"]] == ["SUCCESS", "FAILURE"]
    assert answer["data"][0]["data"]["video"]["url"].endswith(f"/files/{done}/video.mp4")
    assert answer["data"][1]["fail_reason"] == "too dark"


def test_a_relay_may_have_no_batch_query(relay):
    relay.post("/simulator/faults", {"batch": "none"})
    answer = relay.post("/luma/tasks", {"ids": []})
    assert answer.status_code == 404
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_misbehaving_id_is_left_out_of_a_batch_or_spoils_it(relay):
    good, bad = relay.create(duration=0), relay.create(duration=0, misbehaviour="http500_1x")
    assert [found["id"] for found in relay.post("/luma/tasks", {"ids": [good, bad]}).json()] == [good]
    assert [found["id"] for found in relay.post("/luma/tasks", {"ids": [good, bad]}).json()] == [good, bad]
    relay.post("/simulator/faults", {"spoil_batch": True})
    another = relay.create(duration=0, misbehaviour="http500")
    assert relay.post("/luma/tasks", {"ids": [good, another]}).status_code == 500


def test_the_link_without_watermark_is_signed_and_expires(relay):
    task_id = relay.create(duration=50)
    path = f"/luma/generations/{task_id}/download_video_url"
    assert relay.get(path).status_code == 400
    relay.advance(50)
    link = relay.get(path).json()["url"]
    assert relay.get(link).status_code == 200
    assert relay.get(link.replace("expires=1", "expires=2")).status_code == 403
    relay.advance(3601)
    assert relay.get(link).status_code == 403
    assert relay.get("/luma/generations/nope/download_video_url").json()["code"] == "task_not_exist"


def test_a_restarted_simulator_answers_the_same(relay, run_simulator):
    plain = relay.post("/simulator/generations", {"queue": 3, "duration": 7000, "count": 3}).json()["ids"]
    drawn = [relay.post("/luma/generations", {"user_prompt": "x"}).json()["id"] for _ in range(3)]
    special = [relay.create(duration=0, misbehaviour=name) for name in ("moderated", "nodownload", "neverends")]
    kept = ("state", "submitted_at", "ends_at", "queue", "duration", "misbehaviour", "reason", "files")
    with run_simulator("--seed", "99", "--speed", "1") as restarted:
        for task_id in plain + drawn + special:
            before, after = (world.get(f"/simulator/generations/{task_id}").json() for world in (relay, restarted))
            assert {name: before[name] for name in kept} == {name: after[name] for name in kept}
        for task_id in special:
            theirs, ours = restarted.query(task_id), relay.query(task_id)
            assert theirs.text.replace(restarted.url, relay.url) == ours.text


def test_unknown_paths_are_refused_as_the_relay_does(relay):
    assert relay.get("/luma").json()["error"]["message"] == "Invalid URL (GET /luma)"
    assert relay.post("/luma/generations/x", {}).status_code == 404
