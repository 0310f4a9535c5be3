"""Bad input: each kind gets its problem+json, and never a 500."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from tracker.core import ids


@pytest.fixture
def api(shared_api: Any) -> Any:
    """Nothing that is refused leaves anything behind."""
    return shared_api


GOOD = {"provider": "luma", "task_id": "refused"}


@pytest.mark.parametrize(
    ("fields", "field", "code"),
    [
        ({"provider": "nobody"}, "provider", "unknown_provider"),
        ({"provider": None}, "provider", "string_type"),
        ({"task_id": ""}, "task_id", "string_too_short"),
        ({"task_id": "x" * 513}, "task_id", "string_too_long"),
        ({"task_id": "two words"}, "task_id", "value_error"),
        ({"task_id": ".."}, "task_id", "value_error"),
        ({"task_id": 7}, "task_id", "string_type"),
        ({"task_id": "nul\0nul"}, "task_id", "value_error"),
        ({"metadata": {"a": "x" * 17 * 1024}}, "metadata", "value_error"),
        ({"metadata": {"a": ["\0"]}}, "metadata", "value_error"),
        ({"metadata": {"\0": 1}}, "metadata", "value_error"),
        ({"metadata": []}, "metadata", "dict_type"),
        ({"webhook_url": "https://10.0.0.1/hook"}, "webhook_url", "invalid"),
        ({"webhook_url": "https://169.254.169.254/latest"}, "webhook_url", "invalid"),
        ({"webhook_url": "https://[::ffff:10.0.0.1]/"}, "webhook_url", "invalid"),
        ({"webhook_url": "ftp://example.com/hook"}, "webhook_url", "invalid"),
        ({"webhook_url": "http://example.com/hook"}, "webhook_url", "invalid"),
        ({"webhook_url": "https://user:pass@example.com/"}, "webhook_url", "invalid"),
        ({"webhook_url": "https://"}, "webhook_url", "invalid"),
        ({"webhook_url": "https://exa\0mple.com/"}, "webhook_url", "value_error"),
        ({"tags": "shop"}, "tags", "list_type"),
        ({"tags": ["ok", "\0"]}, "tags.1", "value_error"),
        ({"tags": ["x"] * 51}, "tags", "too_long"),
        ({"timeout": "soon"}, "timeout", "value_error"),
        ({"timeout": -1}, "timeout", "value_error"),
        ({"timeout": 1e300}, "timeout", "value_error"),
        ({"give_up_after": 1}, "give_up_after", "value_error"),
        ({"submitted_at": "yesterday"}, "submitted_at", "datetime_from_date_parsing"),
        ({"submitted_at": "2026-11-22T10:00:00"}, "submitted_at", "timezone_aware"),
        ({"submitted_at": "9998-01-01T00:00:00Z"}, "submitted_at", "value_error"),
        ({"submitted_at": "2999-01-01T00:00:00Z"}, "submitted_at", "invalid"),
        ({"download": ["hologram"]}, "download", "literal_error"),
        ({"events": ["generation.completed"]}, "events", "value_error"),
        ({"credential": "nobody's"}, "credential", "invalid"),
        ({"poll_price": 0}, "poll_price", "greater_than_equal"),
        ({"poll_price": 1e-300}, "poll_price", "greater_than_equal"),
        ({"surprise": 1}, "surprise", "extra_forbidden"),
    ],
)
def test_a_wrong_field_is_named(api: Any, fields: dict[str, Any], field: str, code: str) -> None:
    told = api.problem(api.post("/v1/generations", {**GOOD, **fields}), 422, "invalid", *_named(fields, field))
    assert told["errors"][0]["code"] == code
    assert api.get("/v1/generations", params={"task_id": GOOD["task_id"]}).json()["data"] == []


def _named(fields: dict[str, Any], field: str) -> list[str]:
    # A kind is refused by each branch of `true or a list of kinds`.
    return ["download", "download.0"] if fields.get("download") else [field]


def test_every_wrong_field_is_named_at_once(api: Any) -> None:
    body = {"task_id": "", "tags": 7, "surprise": 1}
    api.problem(api.post("/v1/generations", body), 422, "invalid", "provider", "task_id", "tags", "surprise")


@pytest.mark.parametrize(
    "body", [b"", b"   ", b"{", b'{"a":1,}', b"\xff\xfe", b'{"provider": "\xff"}', b"NaN", b"[1e999]", b'"\\ud800"']
)
def test_a_body_that_is_not_json_is_400(api: Any, body: bytes) -> None:
    api.problem(api.call("POST", "/v1/generations", data=body), 400, "malformed")
    api.problem(api.call("POST", "/v1/generations/batch", data=body), 400, "malformed")


@pytest.mark.parametrize("body", [b"[]", b"null", b"7", b'"x"'])
def test_json_that_is_no_object_is_422(api: Any, body: bytes) -> None:
    for path in ("/v1/generations", "/v1/generations/batch", "/v1/endpoints", "/v1/keys"):
        api.problem(api.call("POST", path, data=body), 422, "invalid", "body")


@pytest.mark.parametrize("depth", [198, 199, 200, 250, 251, 252, 253, 254])
def test_metadata_that_is_taken_can_be_written_everywhere(api: Any, depth: int) -> None:
    """Metadata stands in a row of many, in an answer, in a list of answers and in an event: all deeper than itself."""
    nested: Any = {"a": 1}
    for _ in range(depth):
        nested = {"a": nested}
    item = {"provider": "luma", "task_id": f"nested-{depth}", "metadata": nested}
    taken = depth < 200  # the innermost is a level too
    batch = api.post(
        "/v1/generations/batch", {"generations": [item, {"provider": "luma", "task_id": f"plain-{depth}"}]}
    )
    assert batch.status_code == 200, batch.text
    assert [one["status"] for one in batch.json()["results"]] == [201 if taken else 422, 201]
    assert api.get("/v1/generations").status_code == 200
    plain = batch.json()["results"][1]["generation"]["id"]
    change = api.call("PATCH", f"/v1/generations/{plain}", json={"metadata": nested})
    assert change.status_code == (200 if taken else 422), change.text


@pytest.mark.parametrize("depth", [100, 300, 1000, 5000, 100_000])
def test_deep_nesting_is_never_a_500(api: Any, depth: int) -> None:
    nested = b'{"provider":"luma","task_id":"deep","metadata":{"a":' + b"[" * depth + b"]" * depth + b"}}"
    answer = api.call("POST", "/v1/generations", data=nested)
    assert answer.status_code == (201 if depth == 100 else 422 if depth < 1024 else 400), answer.text
    assert api.get("/v1/generations").status_code == 200


def test_a_batch_is_bounded(api: Any) -> None:
    items = [{"provider": "luma", "task_id": f"t{n}"} for n in range(1001)]
    told = api.problem(api.post("/v1/generations/batch", {"generations": items}), 422, "invalid", "generations")
    assert told["errors"][0]["code"] == "too_long"
    api.problem(api.post("/v1/generations/batch", {}), 422, "invalid", "generations")
    api.problem(api.post("/v1/generations/batch", {"generations": [], "x": 1}), 422, "invalid", "x")
    assert api.post("/v1/generations/batch", {"generations": []}).json() == {"results": []}


def test_bodies_are_bounded(api: Any) -> None:
    assert api.call("POST", "/v1/generations", data=b" " * 262_144).status_code == 400
    api.problem(api.call("POST", "/v1/generations", data=b" " * 262_145), 413, "too_large")
    api.problem(api.call("POST", "/v1/generations/batch", data=b" " * (8 * 1024 * 1024 + 1)), 413, "too_large")


def test_who_may_not_ask_hears_that_before_anything_about_his_body(api: Any) -> None:
    for body in (b"", b"{", b" " * 262_145):
        refused = api.call("POST", "/v1/generations", data=body, headers={"Authorization": "Bearer trk_nobody"})
        api.problem(refused, 401, "unauthorized")


def test_a_body_without_a_length_is_cut_off_while_it_is_read(api: Any) -> None:
    host, port = api.url.removeprefix("http://").split(":")
    head = f"POST /v1/generations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\nTransfer-Encoding: chunked\r\n\r\n"
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(head.encode())
        for _ in range(5):
            connection.sendall(piece)
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in answer.lower()


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"cursor": "AAAA"}, "cursor"),
        ({"cursor": "not a cursor"}, "cursor"),
        ({"cursor": "é"}, "cursor"),
        ({"cursor": "\0"}, "cursor"),
        ({"limit": 0}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"state": "asleep"}, "state.0"),
        ({"registered_after": "yesterday"}, "registered_after"),
        ({"registered_after": "2026-01-01T00:00:00"}, "registered_after"),
        ({"task_id": "\0"}, "task_id"),
        ({"provider": "a\0b"}, "provider"),
        ({"tag": "\0"}, "tag"),
    ],
)
def test_a_wrong_query_is_named(api: Any, params: dict[str, Any], field: str) -> None:
    api.problem(api.get("/v1/generations", params=params), 422, "invalid", field)


def test_a_cursor_is_good_for_its_own_list_alone(api: Any) -> None:
    api.register("a")
    api.register("b")
    cursor = api.get("/v1/generations", params={"limit": 1}).json()["next_cursor"]
    assert api.get("/v1/generations", params={"cursor": cursor}).json()["data"][0]["task_id"] == "a"
    for altered in (cursor[:-2] + "AA", "B" + cursor[1:], cursor + "A", cursor.swapcase()):
        api.problem(api.get("/v1/generations", params={"cursor": altered}), 422, "invalid", "cursor")
    for other in ("/v1/endpoints", "/v1/deliveries", "/v1/keys"):
        api.problem(api.get(other, params={"cursor": cursor}), 422, "invalid", "cursor")


@pytest.mark.parametrize(
    "wrong", ["gen_x", "evt_00000000000000000000000000", "gen_" + "z" * 26, "gen_é", "%00", "..%2f", "7"]
)
def test_what_is_no_id_is_unknown(api: Any, wrong: str) -> None:
    answer = api.get(f"/v1/generations/{wrong}")
    assert answer.status_code in {404, 422}, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_unknown_paths_and_methods(api: Any) -> None:
    api.problem(api.get("/v1/nothing"), 404, "not_found")
    api.problem(api.get("/v1/generations/"), 404, "not_found")
    answer = api.call("PUT", "/v1/generations")
    api.problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "GET, POST"
    assert api.call("POST", f"/v1/generations/{ids.DIGITS}").headers["allow"] == "DELETE, GET, PATCH"


def test_request_ids_are_answered_and_forged_ones_are_not(api: Any) -> None:
    assert api.get("/healthz").headers["x-request-id"].startswith("req_")
    assert api.get("/healthz", headers={"X-Request-ID": "mine-7"}).headers["x-request-id"] == "mine-7"
    for forged in ("a b", "x" * 129, "<script>", "é"):
        answer = api.get("/healthz", headers={"X-Request-ID": forged.encode("latin-1")})
        assert answer.headers["x-request-id"].startswith("req_")


def test_numbers_that_json_cannot_keep(api: Any) -> None:
    raw = json.dumps({**GOOD, "metadata": {"n": 10**400}}).encode()
    api.problem(api.call("POST", "/v1/generations", data=raw), 400, "malformed")
