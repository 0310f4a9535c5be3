"""Idempotency-Key: the same request again gets the same answer, and nothing is done twice."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest


def _key(value: str) -> dict[str, dict[str, str]]:
    return {"headers": {"Idempotency-Key": value}}


def test_the_answer_is_repeated_and_the_work_is_not(api: Any) -> None:
    wish = {"url": "http://127.0.0.1:9/"}
    first = api.post("/v1/endpoints", wish, **_key("one"))
    again = api.post("/v1/endpoints", wish, **_key("one"))
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["idempotency-replayed"] == "true"
    assert len(api.get("/v1/endpoints").json()["data"]) == 1
    api.post("/v1/endpoints", wish, **_key("two"))
    assert len(api.get("/v1/endpoints").json()["data"]) == 2


def test_registering_is_answered_201_again(api: Any) -> None:
    wish = {"provider": "luma", "task_id": "t"}
    answers = [api.post("/v1/generations", wish, **_key("k")) for _ in range(2)]
    assert [a.status_code for a in answers] == [201, 201]
    batch = {"generations": [wish]}
    answers = [api.post("/v1/generations/batch", batch, **_key("b")) for _ in range(2)]
    assert answers[0].content == answers[1].content


def test_another_request_under_the_same_key_is_refused(api: Any) -> None:
    api.post("/v1/generations", {"provider": "luma", "task_id": "t"}, **_key("k"))
    for path, body in (
        ("/v1/generations", {"provider": "luma", "task_id": "u"}),
        ("/v1/endpoints", {"url": "http://127.0.0.1:9/"}),
    ):
        told = api.problem(api.post(path, body, **_key("k")), 422, "invalid", "Idempotency-Key")
        assert told["errors"][0]["code"] == "idempotency_key_reused"


def test_while_the_first_runs_the_second_is_a_conflict(api: Any) -> None:
    body = b'{"provider": "luma", "task_id": "t"}'
    fingerprint = hashlib.sha256(b"POST /v1/generations?\n" + body).digest()
    project = api.services.keys.project().project_id
    api.services.idempotency.begin(project, "k", fingerprint)
    api.problem(api.call("POST", "/v1/generations", data=body, **_key("k")), 409, "idempotency_key_in_use")


def test_a_failure_frees_the_key(api: Any) -> None:
    wrong = {"provider": "luma", "task_id": "t", "credential": "nobody"}
    api.problem(api.post("/v1/generations", wrong, **_key("k")), 422, "invalid", "credential")
    assert api.post("/v1/generations", {**wrong, "credential": "default"}, **_key("k")).status_code == 201


def test_keys_belong_to_their_project(api: Any) -> None:
    other = api.with_key("write", project="other")
    for client in (api, other):
        assert client.post("/v1/generations", {"provider": "luma", "task_id": "t"}, **_key("k")).status_code == 201


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
def test_a_key_that_is_none(shared_api: Any, key: str) -> None:
    answer = shared_api.post("/v1/generations", {"provider": "luma", "task_id": "t"}, **_key(key))
    shared_api.problem(answer, 422, "invalid", "Idempotency-Key")
