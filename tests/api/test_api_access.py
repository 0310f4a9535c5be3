"""Who may do what: keys, scopes, and other projects' things, over every route of the description."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tracker.core.generation import State

OPEN = {"/healthz", "/readyz", "/callbacks/{provider}/{token}", "/metrics"}
"""Without a key: probes, providers' callbacks, and the figures while only this machine can ask."""
ADMIN = {
    ("get", "/v1/secret"), ("post", "/v1/secret/rotate"), ("get", "/v1/endpoints/{endpoint_id}/secret"),
    ("post", "/v1/endpoints/{endpoint_id}/rotate-secret"), ("put", "/v1/credentials/{name}"), ("delete", "/v1/credentials/{name}"),
    ("post", "/v1/credentials/{name}/resume"), ("post", "/v1/credentials/{name}/test"), ("post", "/v1/keys"), ("get", "/v1/keys"),
    ("get", "/v1/keys/{key_id}"), ("delete", "/v1/keys/{key_id}"),
}  # fmt: skip
READ = {
    ("post", "/v1/generations/{generation_id}/artifacts/{kind}/link"),
    ("post", "/v1/generations/{generation_id}/artifacts/{kind}/{index}/link"),
}


@pytest.fixture(scope="session")
def theirs(shared_api: Any) -> dict[str, str]:
    """Things of another project, by the name of the path's parameter."""
    other = shared_api.with_key("admin", project="theirs")
    made = other.register("theirs", webhook_url="http://127.0.0.1:9/hook")["id"]
    other.store(made, b"theirs")
    endpoint = other.post("/v1/endpoints", {"url": "http://127.0.0.1:9/"}).json()["id"]
    other.call("PUT", "/v1/credentials/theirs", json={"providers": ["luma"]})
    return {
        "generation_id": made, "endpoint_id": endpoint, "delivery_id": other.get("/v1/deliveries").json()["data"][0]["id"],
        "key_id": other.get("/v1/keys").json()["data"][0]["id"], "name": "theirs", "kind": "video", "index": "0",
    }  # fmt: skip


BODIES = {
    "put": {"base_url": "http://127.0.0.1:9"},
    "/v1/endpoints/{endpoint_id}/recover": {"since": "2026-01-01T00:00:00Z"},
}


def _routes(api: Any) -> list[tuple[str, str]]:
    paths = api.get("/openapi.json").json()["paths"]
    return [(method, path) for path, methods in paths.items() for method in methods]


def test_without_a_valid_key_nothing_is_told(shared_api: Any, theirs: dict[str, str]) -> None:
    checked = 0
    for method, path in _routes(shared_api):
        if path in OPEN:
            continue
        for header in (None, "Basic dTpw", "Bearer", "Bearer trk_wrong", "Bearer " + "x" * 5000, "Bearer é"):
            given = {"Authorization": header if header is None else header.encode("latin-1")}
            answer = shared_api.call(method.upper(), path.format(**theirs), headers=given, json={})
            shared_api.problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
            checked += 1
    assert checked > 200


def test_scopes_are_asked_for(shared_api: Any, theirs: dict[str, str]) -> None:
    read, write = shared_api.with_key("read"), shared_api.with_key("write")
    for method, path in _routes(shared_api):
        if path in OPEN:
            continue
        needs = "admin" if (method, path) in ADMIN else "read" if method == "get" or (method, path) in READ else "write"
        for client, allowed in ((read, {"read"}), (write, {"read", "write"})):
            answer = client.call(method.upper(), path.format(**theirs), json={})
            assert (answer.status_code == 403) == (needs not in allowed), (method, path, answer.text)
            if answer.status_code == 403:
                assert f"`{needs}`" in shared_api.problem(answer, 403, "forbidden")["detail"]


def test_another_projects_things_are_404(shared_api: Any, theirs: dict[str, str]) -> None:
    checked = 0
    for method, path in _routes(shared_api):
        if not re.search(r"\{(generation|endpoint|delivery|key)_id\}|\{name\}", path) or path in OPEN:
            continue
        body = BODIES.get(path, BODIES.get(method, {}))
        answer = shared_api.call(method.upper(), path.format(**theirs), json=body)
        if (method, path) == ("put", "/v1/credentials/{name}"):
            shared_api.problem(answer, 422, "invalid", "providers")  # a new one of our own, which lacks its providers
        else:
            shared_api.problem(answer, 404, "not_found")
        checked += 1
    assert checked > 25
    other = shared_api.with_key("read", project="theirs")
    assert other.get(f"/v1/generations/{theirs['generation_id']}").json()["state"] == State.COMPLETED.value


def test_a_revoked_or_expired_key_is_refused_at_once(shared_api: Any) -> None:
    made = shared_api.post("/v1/keys", {"name": "short", "scopes": ["read"]}).json()
    client = shared_api.with_key("read")
    client.key = made["key"]
    assert client.get("/v1/generations").status_code == 200
    assert shared_api.call("DELETE", f"/v1/keys/{made['id']}").status_code == 204
    assert "revoked" in shared_api.problem(client.get("/v1/generations"), 401, "unauthorized")["detail"]
