"""Endpoints, secrets, deliveries and keys through the API."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tracker.api import lists, schemas
from tracker.core.generation import State
from tracker.store import db, endpoints


def test_an_endpoint_from_birth_to_death(api: Any) -> None:
    wish = {
        "url": "http://127.0.0.1:9/hooks", "events": ["generation.completed"], "tags": ["shop"], "providers": ["luma"],
        "headers": {"X-Token": "very secret"}, "rate_limit": 5, "schedule": [0, 5, 60], "description": "mine",
    }  # fmt: skip
    answer = api.post("/v1/endpoints", wish)
    made = api.shows(answer, schemas.EndpointShown, 201)
    assert answer.headers["location"] == f"/v1/endpoints/{made['id']}"
    assert made["headers"] == {"X-Token": "***"}
    assert "very secret" not in answer.text
    path = f"/v1/endpoints/{made['id']}"
    assert api.shows(api.get(path), schemas.EndpointShown) == made
    changed = api.shows(api.call("PATCH", path, json={"enabled": False}), schemas.EndpointShown)
    assert (changed["enabled"], changed["disabled_reason"], changed["url"]) == (
        False,
        "disabled by its owner",
        made["url"],
    )
    assert api.call("PATCH", path, json={"enabled": True}).json()["disabled_reason"] is None
    assert [e["id"] for e in api.shows(api.get("/v1/endpoints"), lists.EndpointPage)["data"]] == [made["id"]]
    assert api.call("DELETE", path).status_code == 204
    api.problem(api.get(path), 404, "not_found")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"url": "http://example.com"}, "url"), ({"url": "https://192.168.0.1"}, "url"), ({"url": "https://u:p@example.com"}, "url"),
        ({"events": ["no.such"]}, "events.0"), ({"providers": ["nobody"]}, "providers.0"), ({"headers": {"Host": "x"}}, "headers"),
        ({"headers": {"a": "b\r\nc"}}, "headers.a"), ({"schedule": []}, "schedule"), ({"rate_limit": 0}, "rate_limit"),
        ({"rate_limit": 1e-300}, "rate_limit"), ({"rate_limit": 0.0009}, "rate_limit"), ({"schedule": [0, 1e-300]}, "schedule.1"), ({"ca": "x"}, "ca"),
        ({"description": "\0"}, "description"), ({"colour": 1}, "colour"),
    ],
)  # fmt: skip
def test_a_wrong_endpoint_is_refused(shared_api: Any, fields: dict[str, Any], field: str) -> None:
    shared_api.problem(
        shared_api.post("/v1/endpoints", {"url": "https://example.com/", **fields}), 422, "invalid", field
    )


def test_the_smallest_that_is_accepted_is_stored(api: Any) -> None:
    made = api.post("/v1/endpoints", {"url": "http://127.0.0.1:9/", "rate_limit": 0.001, "schedule": [0, 0.001]})
    assert (api.shows(made, schemas.EndpointShown, 201)["schedule"][0], made.json()["rate_limit"]) == (0, 0.001)


def test_a_secret_that_many_rotate_at_once_has_one_successor_and_all_still_sign(api: Any) -> None:
    project = api.services.keys.project().project_id
    before = api.services.endpoints.project_secret(project)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: api.services.endpoints.rotate_project_secret(project), range(24)))
    with api.services.database.transaction() as tx:
        signing = [api.services.vault.decrypt(s) for s in endpoints.secrets(tx, project, None, db.now(tx))]
    assert sorted(signing) == sorted([before, *made])
    assert signing[0] == api.services.endpoints.project_secret(project)


def test_secrets_rotate(api: Any) -> None:
    made = api.post("/v1/endpoints", {"url": "http://127.0.0.1:9/"}).json()["id"]
    for read, rotate in (
        (f"/v1/endpoints/{made}/secret", f"/v1/endpoints/{made}/rotate-secret"),
        ("/v1/secret", "/v1/secret/rotate"),
    ):
        old = api.shows(api.get(read), schemas.SecretShown)["secret"]
        new = api.shows(api.post(rotate), schemas.SecretShown)["secret"]
        assert old.startswith("whsec_")
        assert new != old
        assert api.get(read).json()["secret"] == new


def test_deliveries_are_listed_read_and_repeated(api: Any) -> None:
    endpoint = api.post("/v1/endpoints", {"url": "http://127.0.0.1:9/"}).json()["id"]
    made = api.register(webhook_url="http://127.0.0.1:9/adhoc")["id"]
    api.move(made, State.QUEUED)
    api.move(made, State.COMPLETED)
    page = api.shows(api.get(f"/v1/generations/{made}/deliveries"), lists.DeliveryPage)["data"]
    assert sorted((d["type"], d["endpoint_id"]) for d in page if d["endpoint_id"]) == [
        ("generation.completed", endpoint), ("generation.queued", endpoint),
    ]  # fmt: skip
    assert [(d["type"], d["url"]) for d in page if not d["endpoint_id"]] == [
        ("generation.completed", "http://127.0.0.1:9/adhoc")
    ]
    assert {d["generation_id"] for d in page} == {made}

    def count(**params: Any) -> int:
        return len(api.shows(api.get("/v1/deliveries", params=params), lists.DeliveryPage)["data"])

    assert (count(), count(endpoint_id=endpoint), count(state="failed"), count(generation_id=made)) == (3, 2, 0, 3)
    first = api.get("/v1/deliveries", params={"limit": 2}).json()
    rest = api.get("/v1/deliveries", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert len({d["id"] for d in first["data"] + rest["data"]}) == 3
    path = f"/v1/deliveries/{page[0]['id']}"
    assert api.shows(api.get(path), schemas.DeliveryWithAttempts)["attempts"] == []
    assert api.shows(api.post(path + "/redeliver"), schemas.DeliveryWithAttempts, 202)["state"] == "pending"
    api.services.delivery.send_due()
    made_attempts = api.shows(api.get(path), schemas.DeliveryWithAttempts)["attempts"]
    assert [(a["number"], a["error_class"]) for a in made_attempts] == [(1, "connect")]
    assert made_attempts[0]["worker"].endswith(f"/{os.getpid()}")


def test_ping_and_recover(api: Any) -> None:
    made = api.post("/v1/endpoints", {"url": "http://127.0.0.1:9/", "enabled": False}).json()["id"]
    api.move(api.register()["id"], State.QUEUED)
    assert api.get("/v1/deliveries").json()["data"] == []
    since = {"since": "2026-01-01T00:00:00+08:00"}
    api.problem(api.post(f"/v1/endpoints/{made}/recover", since), 409, "endpoint_disabled")
    api.call("PATCH", f"/v1/endpoints/{made}", json={"enabled": True})
    recovered = api.shows(api.post(f"/v1/endpoints/{made}/recover", since), schemas.RecoveredShown, 202)
    assert recovered["recovered"] == 1
    assert recovered["complete"] in {True, False}, "what others write at that time is waited for in the background"
    api.problem(api.post(f"/v1/endpoints/{made}/recover", {"since": "once"}), 422, "invalid", "since")
    sent = api.shows(api.post(f"/v1/endpoints/{made}/test"), schemas.DeliveryMade, 202)
    assert api.get(f"/v1/deliveries/{sent['delivery_id']}").json()["type"] == "ping"


def test_keys_are_shown_once(api: Any) -> None:
    answer = api.post("/v1/keys", {"name": "shop", "scopes": ["read"], "expires_at": "2099-01-01T00:00:00Z"})
    made = api.shows(answer, schemas.KeyMade, 201)
    shown = api.shows(api.get(f"/v1/keys/{made['id']}"), schemas.KeyShown)
    assert (shown["name"], shown["scopes"], shown["expires_at"]) == ("shop", ["read"], "2099-01-01T00:00:00.000000Z")
    assert made["key"] not in api.get("/v1/keys").text
    api.shows(api.get("/v1/keys"), lists.KeyPage)
    assert api.call("DELETE", f"/v1/keys/{made['id']}").status_code == 204
    assert api.get(f"/v1/keys/{made['id']}").json()["revoked_at"]
    api.problem(api.post("/v1/keys", {"scopes": ["root"]}), 422, "invalid", "scopes.0")
    api.problem(api.post("/v1/keys", {"expires_at": "2001-01-01T00:00:00Z"}), 422, "invalid", "expires_at")
