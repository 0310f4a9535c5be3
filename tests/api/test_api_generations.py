"""Generations through the API: register, find, steer."""

from __future__ import annotations

from typing import Any

import pytest

from tracker.api import lists, schemas
from tracker.core.generation import ErrorCode, Failure, State

WISH = {
    "provider": "luma", "task_id": "t-1", "metadata": {"order": 4711}, "tags": ["shop"], "download": True, "timeout": "PT1H",
    "webhook_url": "http://127.0.0.1:9/hook", "events": ["generation.completed"],
}  # fmt: skip


def test_register_answers_the_generation_and_its_place(api: Any) -> None:
    answer = api.post("/v1/generations", WISH)
    shown = api.shows(answer, schemas.GenerationShown, 201)
    assert answer.headers["location"] == f"/v1/generations/{shown['id']}"
    assert shown["state"] == "registered"
    assert shown["metadata"] == {"order": 4711}
    assert shown["download"] is True
    assert shown["registered_at"].endswith("Z")
    read = api.shows(api.get(answer.headers["location"]), schemas.GenerationShown)
    assert {**read, "next_poll_at": None} == {**shown, "next_poll_at": None}


def test_the_same_task_again_is_200_with_the_stored_one(api: Any) -> None:
    first = api.post("/v1/generations", WISH).json()
    again = api.shows(api.post("/v1/generations", {"provider": "luma", "task_id": "t-1"}), schemas.GenerationShown)
    assert again["id"] == first["id"]
    assert api.post("/v1/generations", WISH).status_code == 200


def test_a_field_that_differs_is_a_conflict_with_the_stored_id(api: Any) -> None:
    first = api.post("/v1/generations", WISH).json()
    told = api.problem(
        api.post("/v1/generations", {**WISH, "tags": ["other"], "metadata": {}}), 409, "conflict", "metadata", "tags"
    )
    assert told["id"] == first["id"]


def test_a_batch_answers_each_item_in_order(api: Any) -> None:
    api.register("old", tags=["a"])
    items: list[Any] = [
        {"provider": "luma", "task_id": "new"},
        {"provider": "luma", "task_id": "old"},
        {"provider": "luma", "task_id": "old", "tags": ["b"]},
        {"provider": "nobody", "task_id": "x"},
        {"provider": "luma", "task_id": ""},
        {"provider": "luma", "task_id": "n\0l"},
        "not an object",
        None,
    ]
    shown = api.shows(api.post("/v1/generations/batch", {"generations": items}), schemas.BatchShown)
    results = shown["results"]
    assert [result["status"] for result in results] == [201, 200, 409, 422, 422, 422, 422, 422]
    assert [result["problem"]["errors"][0]["field"] for result in results[2:]] == [
        "tags", "provider", "task_id", "task_id", "body", "body",
    ]  # fmt: skip
    assert results[2]["problem"]["id"] == results[1]["generation"]["id"]


def test_a_batch_of_a_thousand(api: Any) -> None:
    items = [{"provider": "luma", "task_id": f"t{n}"} for n in range(1000)]
    answer = api.post("/v1/generations/batch", {"generations": items})
    assert [result["status"] for result in answer.json()["results"]] == [201] * 1000
    found, cursor, pages = [], "", 0
    while cursor is not None:
        page = api.get("/v1/generations", params={"limit": 900, **({"cursor": cursor} if cursor else {})}).json()
        found += [g["id"] for g in page["data"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert (len(found), len(set(found)), pages) == (1000, 1000, 5)
    assert found == sorted(found, reverse=True)


def test_filters_narrow_the_list(api: Any) -> None:
    a, b = api.register("a", tags=["x", "y"])["id"], api.register("b", tags=["y"])["id"]
    api.move(b, State.COMPLETED)

    def ids(**params: Any) -> list[str]:
        page = api.shows(api.get("/v1/generations", params=params), lists.GenerationPage)
        return [g["id"] for g in page["data"]]

    assert ids() == [b, a]
    assert ids(tag="x") == [a]
    assert ids(task_id="b") == [b]
    assert ids(state=["completed", "failed"]) == [b]
    assert ids(state=["completed", "registered"]) == [b, a]
    assert ids(provider="kling") == []
    assert ids(registered_after="2020-01-01T00:00:00Z", registered_before="2020-01-02T00:00:00+14:00") == []
    assert ids(registered_after="0001-01-01T00:00:00+14:00", registered_before="9999-12-31T23:59:59-14:00") == [b, a]
    assert ids(limit="1000000000000000000000000") == [b, a]


def test_only_sent_fields_change(api: Any) -> None:
    made = api.register("a", tags=["x"], metadata={"n": 1})
    answer = api.call("PATCH", f"/v1/generations/{made['id']}", json={"tags": ["z"], "timeout": 60})
    changed = api.shows(answer, schemas.GenerationShown)
    assert (changed["tags"], changed["metadata"], changed["version"]) == (["z"], {"n": 1}, made["version"] + 1)
    assert changed["timeout_at"] < made["timeout_at"]


def test_delete_forgets(api: Any) -> None:
    made = api.register()
    gone = api.call("DELETE", f"/v1/generations/{made['id']}")
    assert (gone.status_code, gone.content) == (204, b"")
    api.problem(api.get(f"/v1/generations/{made['id']}"), 404, "not_found")
    api.problem(api.call("DELETE", f"/v1/generations/{made['id']}"), 404, "not_found")


def test_cancel_retrack_poll_and_transitions(api: Any) -> None:
    path = f"/v1/generations/{api.register()['id']}"
    api.shows(api.post(path + "/poll"), schemas.GenerationShown)
    cancelled = api.shows(api.post(path + "/cancel"), schemas.GenerationShown)
    assert cancelled["state"] == "cancelled"
    assert cancelled == api.get(path).json() == api.post(path + "/cancel").json(), "as it is read, though it was not"
    api.problem(api.post(path + "/poll"), 409, "conflict")
    assert api.post(path + "/retrack").json()["state"] == "registered"
    steps = api.shows(api.get(path + "/transitions"), lists.TransitionPage)["data"]
    assert [(s["sequence"], s["from"], s["to"]) for s in steps] == [
        (1, None, "registered"), (2, "registered", "cancelled"), (3, "cancelled", "registered"),
    ]  # fmt: skip


def test_what_is_final_cannot_be_cancelled(api: Any) -> None:
    made = api.register()["id"]
    api.move(made, State.FAILED, error=Failure(ErrorCode.MODERATED, "no"))
    api.problem(api.post(f"/v1/generations/{made}/cancel"), 409, "conflict")
    shown = api.shows(api.get(f"/v1/generations/{made}"), schemas.GenerationShown)
    assert shown["error"] == {"code": "moderated", "message": "no", "provider_code": None}
    assert shown["finished_at"]


def test_download_before_the_end_sets_the_wish(api: Any) -> None:
    path = f"/v1/generations/{api.register()['id']}"
    some = api.shows(api.post(path + "/download", {"kinds": ["video"]}), schemas.GenerationShown, 202)
    assert some["download"] == ["video"]
    assert api.post(path + "/download").json()["download"] is True


@pytest.mark.parametrize("known", ['W/"1"', '"1"', '"0", W/"1"', "*"])
def test_not_modified_while_the_version_stands(api: Any, known: str) -> None:
    path = f"/v1/generations/{api.register()['id']}"
    assert api.get(path).headers["etag"] == 'W/"1"'
    same = api.get(path, headers={"If-None-Match": known})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", 'W/"1"')
    assert api.get(path, headers={"If-None-Match": 'W/"2"'}).status_code == 200
