"""What every registered provider must do, and every recorded answer with what it must be read as. A new provider is picked up by itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracker.core.generation import KINDS, State
from tracker.core.observation import Observation, Problem, Seen
from tracker.errors import InvalidError
from tracker.providers import REGISTRY, fields, get
from tracker.providers.base import Account, Provider, Response, Subject

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "sk-the-key-0123456789"
RECORDED = Path(__file__).parent / "recorded"
CASES = sorted(RECORDED.glob("*/*.case.json"))

every_provider = pytest.mark.parametrize("provider", REGISTRY.values(), ids=list(REGISTRY))


def answered(body: bytes, status: int = 200, failure: str | None = None, **headers: str) -> Response:
    return Response(status, headers, body, NOW, failure)


def account(provider: Provider) -> Account:
    return Account(provider.default_base_url, KEY)


@every_provider
def test_it_is_registered_under_its_own_name_and_has_a_public_default(provider: Provider) -> None:
    assert REGISTRY[provider.name] is provider
    parts = urlsplit(provider.default_base_url)
    assert (parts.scheme, parts.path) == ("https", "")


def test_an_unknown_provider_is_named_beside_the_known_ones() -> None:
    with pytest.raises(InvalidError, match=r"'lumo' is not a provider; known are: .*luma") as caught:
        get("lumo")
    assert caught.value.problems[0].field == "provider"
    assert get("luma") is REGISTRY["luma"]


@every_provider
@settings(max_examples=40)
@given(task_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=80))
def test_a_question_stays_on_its_host_and_keeps_the_key_in_the_headers(provider: Provider, task_id: str) -> None:
    kind = provider.kinds[0] if provider.kinds else None
    asked = provider.question(Account(provider.default_base_url + "/", KEY), Subject(task_id, kind))
    parts = urlsplit(asked.url)
    assert f"{parts.scheme}://{parts.netloc}" == provider.default_base_url
    assert asked.url.isascii()
    assert asked.url.isprintable()
    assert not set(' "<>\\^`{|}') & set(asked.url)
    assert asked.method in {"GET", "POST"}
    assert (asked.body is None) == (asked.method == "GET")
    assert any(KEY in value for _, value in asked.headers)
    assert KEY not in asked.url
    assert KEY.encode() not in (asked.body or b"")
    assert KEY not in repr(asked)


@every_provider
def test_no_two_tasks_share_a_question(provider: Provider) -> None:
    ids = ["a", "a/b", "a%2Fb", "a?b", "a#b", "a b", "é", "../a"]
    asked = [provider.question(account(provider), Subject(task_id)) for task_id in ids]
    assert len({(question.url, question.body) for question in asked}) == len(ids)


@pytest.mark.parametrize(
    "address",
    [
        "http://",
        "https:///a.mp4",
        "ftp://a.example/a",
        "//a.example/a",
        "https://a.example/\0",
        "https://[",
        "",
        None,
        7,
    ],
)
def test_what_is_no_web_address_is_no_output(address: object) -> None:
    assert fields.output("video", {"url": address}) is None


@pytest.mark.parametrize(
    ("value", "share"),
    [
        (62, 0.62), ("62%", 0.62), ("62", 0.62), (0.62, 0.62), (1, 0.01), (1.0, 1.0), ("100%", 1.0), (0, 0.0), (62.5, 0.625),
        (250, 1.0), (-3, 0.0), ("", None), ("soon", None), (None, None), (True, None), ("nan", None), ([], None),
    ],
)  # fmt: skip
def test_progress_in_all_its_spellings(value: object, share: float | None) -> None:
    assert fields.progress(value) == share


@pytest.mark.parametrize(
    "key",
    ["sk-abc123DEF456", "Bearer abc.def", "luma-12345678-abcd", "eyJhbGciOi.eyJpc3MiOi.sig", "sk-abc***********xyz"],
)
def test_keys_in_complaints_are_not_repeated(key: str) -> None:
    response = answered(f'{{"error": {{"message": "invalid key {key}, sorry"}}}}'.encode(), 401)
    seen = REGISTRY["luma"].read(Subject("task"), response)
    assert isinstance(seen, Problem)
    assert key not in seen.message
    assert "[secret]" in seen.message


def test_a_key_at_the_cut_of_a_quoted_page_is_not_shown_by_halves() -> None:
    seen = REGISTRY["luma"].read(Subject("task"), answered(b"x" * 190 + b" sk-0123456789abcdef", 500))
    assert isinstance(seen, Problem)
    assert "sk-" not in seen.message


def test_an_account_never_shows_its_key() -> None:
    assert KEY not in repr(Account("https://relay.example", KEY))


def test_without_a_key_no_authorization_is_sent() -> None:
    names = [name for name, _ in REGISTRY["luma"].question(Account("https://relay.example"), Subject("a")).headers]
    assert names == ["Accept", "Content-Type"]


@every_provider
def test_a_batch_question_names_every_task(provider: Provider) -> None:
    if not provider.batch_size:
        assert provider.read_batch([Subject("a")], answered(b"[]")) is None
        return
    ids = [f"task-{n}" for n in range(provider.batch_size)]
    asked = provider.batch_question(account(provider), [Subject(task_id) for task_id in ids])
    wanted = asked.url + (asked.body or b"").decode()
    assert all(task_id in wanted for task_id in ids)
    assert KEY not in wanted


words = st.sampled_from(
    sorted(
        {"id", "task_id", "state", "status", "data", "code", "message", "error", "fail_reason", "progress"}
        | {
            "video",
            "artifact",
            "assets",
            "url",
            "download_url",
            "thumbnail",
            "video_raw",
            "width",
            "duration",
            "start_time",
        }
    )
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        [
            "task",
            "completed",
            "failed",
            "IN_PROGRESS",
            "62%",
            "0001-01-01T00:00:00Z",
            "https://a.b/c.mp4",
            "http://[",
            "\0",
        ]
    )
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=8),
    max_leaves=25,
)
bodies = st.binary(max_size=200) | values.map(orjson.dumps)
failures = st.sampled_from(
    [None, None, None, "dns", "address", "connect", "tls", "timeout", "protocol", "too_large", "status", "new"]
)


def check(seen: Observation) -> None:
    """What the core relies on, whatever was read."""
    if isinstance(seen, Problem):
        assert 0 < len(seen.message) < 400
        assert not set(seen.message) & set("\0\r\n\t")
        assert seen.retry_after is None or seen.retry_after >= 0
        return
    assert seen.state in {State.QUEUED, State.PROCESSING, State.COMPLETED, State.FAILED, State.CANCELLED}
    assert (seen.error is not None) == (seen.state in {State.FAILED, State.CANCELLED})
    assert "\0" not in seen.status
    assert seen.progress is None or 0 <= seen.progress <= 1
    assert len({(output.kind, output.index) for output in seen.outputs}) == len(seen.outputs)
    for output in seen.outputs:
        assert output.kind in KINDS
        assert output.url.startswith(("http://", "https://"))
        assert "\0" not in output.url


@every_provider
@settings(max_examples=250)
@given(
    body=bodies,
    status=st.sampled_from([200, 200, 200, 204, 302, 400, 401, 403, 404, 429, 500, 503]),
    failure=failures,
    wait=st.text(max_size=8),
)
def test_reading_never_raises(provider: Provider, body: bytes, status: int, failure: str | None, wait: str) -> None:
    response = Response(status, {"retry-after": wait}, body, NOW, failure, "said \0 so")
    check(provider.read(Subject("task"), response))
    for seen in (provider.read_batch([Subject("task"), Subject("other")], response) or {}).values():
        check(seen)


@every_provider
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 300 + b"]" * 300,
        b'{"message":' * 300 + b"1" + b"}" * 300,
        b"[" * 100_000,
        b'{"data":' * 5000,
        b"9" * 5000,
        b'"\\ud800"',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"NaN",
    ],
)
def test_hostile_bodies_are_problems(provider: Provider, body: bytes) -> None:
    assert isinstance(provider.read(Subject("task"), answered(body)), Problem)


def plain(seen: Observation) -> dict[str, Any]:
    if isinstance(seen, Problem):
        return {"problem": {"code": seen.code.value, "retry_after": seen.retry_after}}
    assert isinstance(seen, Seen)
    fields: dict[str, Any] = json.loads(json.dumps(asdict(seen), default=str))
    del fields["raw"]
    fields["started_at"] = seen.started_at and seen.started_at.isoformat()
    return {"seen": fields}


def assert_read_as(seen: Observation, expected: dict[str, Any]) -> None:
    wanted = json.loads(json.dumps(expected))
    says = wanted["problem"].pop("says") if "problem" in wanted else ""
    assert plain(seen) == wanted
    if isinstance(seen, Problem):
        assert says in seen.message


def body_of(case: dict[str, Any], folder: Path) -> bytes:
    if "body_file" in case:
        stored = folder / str(case["body_file"])
        return stored.read_bytes()
    text: str = case["body_text"] if "body_text" in case else json.dumps(case["body"])
    return text.encode()


@pytest.mark.parametrize(
    "path", CASES, ids=[f"{path.parent.name}-{path.name.removesuffix('.case.json')}" for path in CASES]
)
def test_recorded_answers(path: Path) -> None:
    case = json.loads(path.read_bytes())
    provider = get(path.parent.name)
    response = Response(case["status"], case["headers"], body_of(case, path.parent), NOW, case.get("failure"))
    if "asked" not in case:
        assert_read_as(provider.read(Subject(case["task_id"], case.get("kind")), response), case["expected"])
        return
    seen = provider.read_batch([Subject(task_id) for task_id in case["asked"]], response)
    if seen is None or case["expected"] is None:
        assert seen is case["expected"]
        return
    assert seen.keys() == case["expected"].keys()
    for task_id, expected in case["expected"].items():
        assert_read_as(seen[task_id], expected)


@every_provider
def test_every_provider_has_recorded_answers(provider: Provider) -> None:
    kinds = {
        next(iter(json.loads(path.read_bytes())["expected"] or {}), None)
        for path in CASES
        if path.parent.name == provider.name
    }
    assert {"seen", "problem"} <= kinds
