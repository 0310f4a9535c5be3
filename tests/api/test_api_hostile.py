"""Hostile values against every route of the description: never a 5xx, and every refusal is problem+json."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

TEXTS = st.sampled_from(
    [
        "", " ", "\0", "a\0b", "../..", "%00", "'; DROP TABLE x; --", "\u202e", "\ud800", "é" * 40, "x" * 3000, "null", "-1", "0", "1", "99999",
        "9" * 40, "1e999", "NaN", "true", "2026-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "PT1H", "P9999999D",
        "generation.completed", "luma", "video", "default", "http://127.0.0.1:9/", "https://[::1", "http://a:99999/", "https://example.com:0x/",
        "gen_01m838wgkff19ak6h3t6p5f23n", "evt_" + "z" * 26, "dlv_01m838wgkff19ak6h3t6p5f23n", "ep_01m838wgkff19ak6h3t6p5f23n", "A" * 32,
        "____________________________////",
    ]
)  # fmt: skip
NUMBERS = st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, 10**30, -(10**30), 0.1, -0.0, 1e-320, 1e308, 3.4e39])
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=2)),
    max_leaves=6,
)
BODIES = {
    "RegistrationForm": {"provider": "luma", "task_id": "t"},
    "EndpointForm": {"url": "http://127.0.0.1:9/"},
    "CredentialForm": {"providers": ["luma"]},
    "RecoverForm": {"since": "2026-01-01T00:00:00Z"},
    "BatchForm": {"generations": [{"provider": "luma", "task_id": "t"}]},
}
HEADERS = {
    "If-None-Match": ["*", '"', 'W/"1"', "x" * 500],
    "Prefer": ["wait=0", "wait=x", "wait=99999999999", ",;=", "respond-async"],
    "Range": ["bytes=0-", "bytes=-0", "bytes=9-1", "bytes=" + "9" * 30 + "-", "bytes=0-0,1-1"],
    "Idempotency-Key": ["", "k", "x" * 300],
    "Accept": ["*/*", "application/json", "text/html;q=x"],
    "Content-Type": ["text/plain", "multipart/form-data", "application/json; charset=utf-16"],
}


@st.composite
def requests_of(
    draw: st.DrawFn, method: str, path: str, operation: dict[str, Any], known: dict[str, str]
) -> dict[str, Any]:
    """One request to this route, with something wrong in most places."""
    query = []
    for parameter in operation.get("parameters", []):
        name = parameter["name"]
        if parameter["in"] == "path":
            right = known.get(name, "x")
            wrong = draw(TEXTS.filter(bool)).encode("utf-8", "surrogatepass")
            path = path.replace("{" + name + "}", right if draw(st.booleans()) else quote(wrong, safe=""))
        elif parameter["in"] == "query" and draw(st.booleans()):
            query.append((name, draw(TEXTS).encode("utf-8", "surrogatepass")))
    headers = {name: draw(st.sampled_from(values)) for name, values in HEADERS.items() if draw(st.integers(0, 3)) == 0}
    return {
        "method": method.upper(),
        "path": path,
        "params": query,
        "headers": headers,
        "data": draw(_bodies(operation)),
    }


def _bodies(operation: dict[str, Any]) -> st.SearchStrategy[bytes]:
    if "requestBody" not in operation:
        return st.just(b"")
    name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    fields = FIELDS[name]
    changed = st.dictionaries(st.sampled_from(fields), VALUES, max_size=3).map(lambda c: {**BODIES.get(name, {}), **c})
    return st.one_of(changed, changed, VALUES).map(lambda value: json.dumps(value).encode())


FIELDS: dict[str, list[str]] = {}


@pytest.fixture
def routes(api: Any) -> list[tuple[str, str, dict[str, Any]]]:
    found = api.get("/openapi.json").json()
    for name, schema in found["components"]["schemas"].items():
        FIELDS[name] = [*schema.get("properties", {}), "unknown"]
    every = [(method, path, op) for path, ops in found["paths"].items() for method, op in ops.items()]
    return sorted(every, key=lambda route: route[0] == "delete")  # what is attacked must still be there


def test_no_route_breaks(api: Any, routes: list[tuple[str, str, dict[str, Any]]]) -> None:
    made = api.register("known", download=True)["id"]
    api.store(made, b"0123456789")
    endpoint = api.post("/v1/endpoints", {"url": "http://127.0.0.1:9/"}).json()["id"]
    api.post(f"/v1/endpoints/{endpoint}/test")
    known = {
        "generation_id": made, "endpoint_id": endpoint, "delivery_id": api.get("/v1/deliveries").json()["data"][0]["id"],
        "key_id": api.post("/v1/keys", {}).json()["id"], "name": "hostile", "kind": "video", "index": "0", "provider": "luma",
        "token": api.get("/v1/credentials/default").json()["callback_url"].rpartition("/")[2],
    }  # fmt: skip
    statuses: set[int] = set()
    for method, path, operation in routes:

        @settings(
            max_examples=25, deadline=None, derandomize=True, database=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )  # fmt: skip
        @given(requests_of(method, path, operation, known))
        def attack(wish: dict[str, Any]) -> None:
            answer = api.call(wish.pop("method"), wish.pop("path"), **wish)
            assert answer.status_code < 500 or answer.request.path_url.startswith("/readyz"), (
                f"{answer.request.url} {answer.request.body!r}: {answer.text}"
            )
            if answer.status_code >= 400:
                told = api.problem(
                    answer,
                    answer.status_code,
                    answer.json()["code"],
                    *(e["field"] for e in answer.json().get("errors", [])),
                )
                assert told["detail"]
            statuses.add(answer.status_code)

        attack()
    assert {200, 201, 202, 204, 400, 404, 409, 422} <= statuses
