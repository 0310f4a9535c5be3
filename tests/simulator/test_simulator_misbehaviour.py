"""Every misbehaviour, seen on the wire."""

from __future__ import annotations

import json
import time
import zlib

import pytest

from tracker.simulator.misbehaviour import MISBEHAVIOURS, Scope


def parted(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in lower case) and body of raw bytes."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    return int(first.split()[1]), {name.lower(): text for name, text in (line.split(": ", 1) for line in lines)}, body


def status(expected, *, body=None, media_type=None, **headers):
    def check(relay, task_id):
        answer = relay.query(task_id)
        assert answer.status_code == expected
        assert body is None or (answer.json() == body if isinstance(body, dict | list) else body in answer.text)
        assert media_type is None or answer.headers["content-type"] == media_type
        for name, text in headers.items():
            assert answer.headers.get(name.replace("_", "-")) == text

    return check


def slow(relay, task_id):
    began = time.monotonic()
    assert relay.query(task_id).json()["state"] == "completed"
    assert time.monotonic() - began > 0.25


def drip(relay, task_id):
    found, ended = relay.raw(f"/luma/generations/{task_id}", seconds=1.0, enough=110)
    length = int(parted(found)[1]["content-length"])
    assert ended == "open"
    assert 0 < len(parted(found)[2]) < length / 10


def hang(relay, task_id):
    assert relay.raw(f"/luma/generations/{task_id}", seconds=0.2) == (b"", "open")
    relay.eventually("in_flight", 0)


def reset(relay, task_id):
    assert relay.raw(f"/luma/generations/{task_id}") == (b"", "reset")


def garbage(relay, task_id):
    found, ended = relay.raw(f"/luma/generations/{task_id}")
    assert ended == "end"
    assert found
    assert b"HTTP/1" not in found


def cut(relay, task_id):
    found, ended = relay.raw(f"/luma/generations/{task_id}")
    assert ended == "end"
    assert len(parted(found)[2]) == int(parted(found)[1]["content-length"]) // 2


def truncated(relay, task_id):
    answer = relay.query(task_id)
    assert len(answer.content) == int(answer.headers["content-length"])
    with pytest.raises(ValueError):
        answer.json()


def huge(relay, task_id):
    answer = relay.query(task_id, stream=True)
    assert answer.headers["content-length"] == "50000000"
    assert json.loads(answer.content)["state"] == "processing"


def bomb(relay, task_id):
    answer = relay.query(task_id, stream=True)
    packed = answer.raw.read(decode_content=False)
    assert answer.headers["content-encoding"] == "gzip"
    assert len(packed) < 1_000_000
    assert len(zlib.decompress(packed, wbits=31)) > 100_000_000


def nostate(relay, task_id):
    found = relay.query(task_id).json()
    assert found["state"] is None
    assert found["video"]["url"]


def wrongid(relay, task_id):
    assert relay.query(task_id).json()["id"] not in {task_id, None}


def wrongtype(relay, task_id):
    answer = relay.query(task_id)
    assert answer.headers["content-type"] == "text/html"
    assert answer.json()["state"] == "completed"


NOT_EXIST = {"code": "task_not_exist", "message": "task_not_exist", "data": None}
ON_THE_WIRE = {
    "slow": slow,
    "drip": drip,
    "hang": hang,
    "reset": reset,
    "garbage": garbage,
    "cutbody": cut,
    "halfclose": cut,
    "huge": huge,
    "bomb": bomb,
    "http500": status(500, body={"code": "get_task_failed", "message": "get_task_failed", "data": None}),
    "http502": status(502, body="<h1>502 Bad Gateway</h1>", media_type="text/html"),
    "http503": status(503),
    "http504": status(504, body=""),
    "http429": status(429, retry_after="2"),
    "http429bare": status(429, body="", retry_after=None),
    "quota403": status(403, body={"code": "quota_not_enough", "message": "user quota is not enough", "data": None}),
    "quota429": status(429, body="insufficient_user_quota"),
    "forbidden": status(403, body="access denied"),
    "redirect": status(302, location="/elsewhere"),
    "unauthorized": status(401, body="Invalid token"),
    "notfound400": status(400, body=NOT_EXIST),
    "notfound404": status(404, body=NOT_EXIST | {"message": ""}),
    "missing400": status(400, body=NOT_EXIST),
    "missing404": status(404, body=NOT_EXIST | {"message": ""}),
    "truncated": truncated,
    "empty": status(200, body="", content_length="0"),
    "wrongtype": wrongtype,
    "page": status(200, body="<!DOCTYPE html>", media_type="text/html; charset=utf-8"),
    "list": status(200, body=[]),
    "nostate": nostate,
    "wrongid": wrongid,
}
STRENGTH = {"slow": "slow_1x_0.3s", "drip": "drip_1x_0.05s"}


def test_the_table_below_covers_every_spoilt_answer():
    assert ON_THE_WIRE.keys() == {name for name, row in MISBEHAVIOURS.items() if row.scope is Scope.ANSWER}


@pytest.mark.parametrize("name", ON_THE_WIRE)
def test_a_spoilt_answer_is_spoilt_and_then_right_again(relay, name):
    row = MISBEHAVIOURS[name]
    prefix = STRENGTH.get(name, f"{name}_1x" if row.times else name)
    task_id = relay.create(duration=0, misbehaviour=prefix)
    assert task_id.startswith(f"{prefix}-")
    ON_THE_WIRE[name](relay, task_id)
    assert relay.stats()["spoilt"] == {name: 1}
    relay.advance(row.seconds)
    if not name.startswith("missing"):
        assert relay.query(task_id).json()["state"] == "completed"
    else:
        ON_THE_WIRE[name](relay, task_id)


def test_a_followed_redirect_is_seen_in_the_path_counts(relay):
    relay.session.get(
        f"{relay.url}/luma/generations/{relay.create(misbehaviour='redirect')}",
        headers={"Authorization": "Bearer x"},
        timeout=5,
    )
    assert relay.stats()["paths"]["GET /elsewhere"] == 1


def test_retry_after_says_what_was_asked_for(relay):
    assert relay.query("http429_17s-readable").headers["retry-after"] == "17"


def test_a_submit_may_ask_for_misbehaviour(relay):
    found = relay.post("/luma/generations", {"user_prompt": "x", "simulate": "http500_2x"}).json()
    assert found["id"].startswith("http500_2x-")
    assert [relay.query(found["id"]).status_code for _ in range(3)] == [500, 500, 200]


REASON_FIELDS = {
    "failed": "failure_reason",
    "failreason": "fail_reason",
    "statereason": "state_reason",
    "moderated": "failure_reason",
}


@pytest.mark.parametrize(("name", "field"), REASON_FIELDS.items())
def test_failures_carry_their_reason_in_the_chosen_field(relay, name, field):
    task_id = relay.create(duration=0, misbehaviour=name, fail_reason="a cat was missing")
    found = relay.query(task_id).json()
    assert list(found) == ["id", "state", field, "request", "created_at"]
    assert (found["state"], found[field]) == ("failed", "a cat was missing")


def test_failures_of_the_other_forms(relay):
    assert relay.query(relay.create(duration=0, misbehaviour="errormessage")).json()["error"]["message"]
    assert list(relay.query(relay.create(duration=0, misbehaviour="mute")).json()) == [
        "id",
        "state",
        "request",
        "created_at",
    ]
    moderated = relay.query(relay.create(queue=0, duration=1000, misbehaviour="moderated")).json()
    assert moderated["failure_reason"].startswith("content moderation")
    assert relay.query(relay.create(duration=0, fail_reason="plain")).json()["failure_reason"] == "plain"


def states(relay, task_id, step, count):
    found = []
    for _ in range(count):
        found.append(relay.query(task_id).json()["state"])
        relay.advance(step)
    return found


def test_a_life_that_goes_backwards(relay):
    task_id = relay.create(queue=10, duration=30, misbehaviour="backwards")
    assert states(relay, task_id, 9, 6) == ["pending", "pending", "processing", "pending", "processing", "completed"]


def test_a_life_that_never_ends(relay):
    task_id = relay.create(queue=10, duration=30, misbehaviour="neverends")
    relay.advance(1e8)
    assert relay.query(task_id).json()["state"] == "processing"


def test_an_unknown_word_for_a_while_and_for_ever(relay):
    assert states(relay, relay.create(queue=10, duration=30, misbehaviour="unknown"), 15, 4) == [
        "pending",
        "reticulating",
        "reticulating",
        "completed",
    ]
    assert (
        states(relay, relay.create(queue=10, duration=30, misbehaviour="unknown_always"), 15, 4)[1:]
        == ["reticulating"] * 3
    )


def test_completed_without_links_for_a_while_and_for_ever(relay):
    task_id, never = (
        relay.create(duration=0, misbehaviour="nourl_20s"),
        relay.create(duration=0, misbehaviour="nourl_always"),
    )
    assert list(relay.query(task_id).json()) == ["id", "state", "request", "created_at"]
    assert relay.query(task_id).json()["state"] == "completed"
    relay.advance(21)
    assert relay.query(task_id).json()["video"]["url"]
    assert "video" not in relay.query(never).json()


def test_an_empty_link_without_watermark(relay):
    video = relay.query(relay.create(duration=0, misbehaviour="nodownload")).json()["video"]
    assert video["download_url"] == ""
    assert video["url"].endswith("/video.mp4")
