"""What is Jimeng's alone: the question is a body, its model is the task's kind, and pairs of keys sign every request."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime
from urllib.parse import urlsplit

import orjson
import pytest

from tracker.core.observation import Problem, ProblemCode
from tracker.providers import get
from tracker.providers.base import Account, Question, Response, Subject

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()
HOST = "https://visual.volcengineapi.com"


SEVEN = Subject("7")


def asked(api_key: str | None, subject: Subject = SEVEN, base_url: str = HOST, at: float = NOON) -> Question:
    return get("jimeng").question(Account(base_url, api_key, at), subject)


def test_the_task_and_its_model_are_in_the_body() -> None:
    question = asked("key", Subject("7", "jimeng_t2i_v40"))
    assert (question.method, question.url) == ("POST", f"{HOST}/?Action=CVSync2AsyncGetResult&Version=2022-08-31")
    told = orjson.loads(question.body or b"")
    assert (told["req_key"], told["task_id"], orjson.loads(told["req_json"])) == (
        "jimeng_t2i_v40", "7", {"return_url": True},
    )  # fmt: skip
    assert orjson.loads(asked("key").body or b"")["req_key"] == "jimeng_ti2v_v30_pro"


def test_a_model_that_nobody_knew_yet_is_asked_for_as_it_was_given() -> None:
    assert get("jimeng").kinds == ()
    assert orjson.loads(asked("key", Subject("7", "jimeng_t2v_v99")).body or b"")["req_key"] == "jimeng_t2v_v99"


def test_a_relays_key_is_a_bearer_behind_the_relays_path() -> None:
    question = asked("sk-relay", base_url="https://relay.example/jimeng/")
    assert question.url.startswith("https://relay.example/jimeng/?Action=")
    assert dict(question.headers)["Authorization"] == "Bearer sk-relay"
    assert "Authorization" not in dict(asked(None).headers)


@pytest.mark.parametrize("pair", ["AKLT0123456789:c2VjcmV0", "AKLT0123456789|c2VjcmV0"])
@pytest.mark.parametrize("base_url", [HOST, f"{HOST}:443", "https://proxy.example:8443/volc"])
def test_a_pair_of_keys_signs_the_request(base_url: str, pair: str) -> None:
    """Step by step as the provider checks it, from what it receives alone."""
    question = asked(pair, base_url=base_url)
    headers = {name.lower(): value for name, value in question.headers}
    headers["host"] = urlsplit(base_url).netloc.removesuffix(":443")
    form = r"HMAC-SHA256 Credential=(\S+?)/(\d{8})/cn-north-1/cv/request, SignedHeaders=(\S+), Signature=([0-9a-f]{64})"
    found = re.fullmatch(form, headers["authorization"])
    assert found
    access, day, signed, signature = found.groups()
    assert (access, day, headers["x-date"]) == ("AKLT0123456789", "20261129", "20261129T120000Z")
    assert headers["x-content-sha256"] == hashlib.sha256(question.body or b"").hexdigest()
    assert {"host", "x-date", "x-content-sha256", "content-type"} == set(signed.split(";"))
    assert signed.split(";") == sorted(signed.split(";"))
    lines = "".join(f"{name}:{headers[name]}\n" for name in signed.split(";"))
    address = urlsplit(question.url)
    canonical = f"POST\n{address.path}\n{address.query}\n{lines}\n{signed}\n{headers['x-content-sha256']}"
    scope = f"{day}/cn-north-1/cv/request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    summary = f"HMAC-SHA256\n{headers['x-date']}\n{scope}\n{digest}"
    key = b"c2VjcmV0"
    for step in (day, "cn-north-1", "cv", "request"):
        key = hmac.digest(key, step.encode(), "sha256")
    assert hmac.digest(key, summary.encode(), "sha256").hex() == signature
    assert "c2VjcmV0" not in repr(question) + question.url + str(question.headers)


def test_no_two_tasks_and_no_two_seconds_share_a_signature() -> None:
    shown = [
        dict(question.headers)["Authorization"]
        for question in (
            asked("a:b"),
            asked("a:b", Subject("8")),
            asked("a:b", at=NOON + 1),
            asked("a:b", Subject("7", "jimeng_t2v_v30")),
        )
    ]
    assert len(set(shown)) == len(shown)


def test_what_the_gateway_says_may_be_nested_however_deep() -> None:
    body = b'{"ResponseMetadata":{"Error":{"Code":"X","Message":' + b"[" * 1010 + b"]" * 1010 + b"}}}"
    seen = get("jimeng").read(SEVEN, Response(403, {}, body, datetime.now(UTC)))
    assert isinstance(seen, Problem)
    assert (seen.code, seen.message) == (ProblemCode.UNAUTHORIZED, "HTTP 403: X")
