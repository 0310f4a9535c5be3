"""What is Kling's alone: families in the path, and tokens that its pairs of keys sign."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

import pytest

from tracker.core.observation import Problem, ProblemCode
from tracker.providers import get
from tracker.providers.base import Account, Response, Subject
from tracker.providers.kling import PATHS, TOKEN_LIVES, TOKEN_STEP

NOON = datetime(2026, 11, 29, 12, tzinfo=UTC).timestamp()


def bearer(api_key: str, at: float = NOON) -> str:
    asked = get("kling-official").question(Account("https://kling.example", api_key, at), Subject("1", "text2video"))
    return dict(asked.headers)["Authorization"].removeprefix("Bearer ")


def opened(part: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


@pytest.mark.parametrize(("provider", "prefix"), [("kling", "/kling"), ("kling-official", "")])
def test_each_family_has_its_path(provider: str, prefix: str) -> None:
    account = Account("https://kling.example/", "key")
    asked = {kind: get(provider).question(account, Subject("7", kind)).url for kind in get(provider).kinds}
    assert asked["image2video"] == f"https://kling.example{prefix}/v1/videos/image2video/7"
    assert asked["image"] == f"https://kling.example{prefix}/v1/images/generations/7"
    assert len(set(asked.values())) == len(PATHS)
    assert get(provider).question(account, Subject("7")).url == asked["text2video"]


def test_a_missing_task_is_told_with_the_family_that_was_asked() -> None:
    response = Response(404, {}, b'{"code": 1203, "message": "resource not found"}', datetime.now(UTC))
    seen = get("kling-official").read(Subject("7", "lip-sync"), response)
    assert isinstance(seen, Problem)
    assert seen.code is ProblemCode.NOT_FOUND
    assert "asked for as kind 'lip-sync'" in seen.message


def test_a_family_that_was_only_guessed_proves_nothing() -> None:
    response = Response(404, {}, b'{"code": 1203, "message": "resource not found"}', datetime.now(UTC))
    seen = get("kling").read(Subject("7"), response)
    assert isinstance(seen, Problem)
    assert (seen.code, seen.status) == (ProblemCode.UNKNOWN_STATUS, None)
    assert "no kind was given, so it was asked for as 'text2video'" in seen.message


def test_an_api_key_is_shown_as_it_is() -> None:
    assert bearer("api-key-0123456789") == "api-key-0123456789"


def test_a_pair_of_keys_signs_a_token_and_is_never_shown() -> None:
    token = bearer("the-access-key:the-secret-key")
    header, claims, signature = token.split(".")
    assert opened(header) == {"alg": "HS256", "typ": "JWT"}
    assert opened(claims) == {"iss": "the-access-key", "exp": int(NOON) + TOKEN_LIVES, "nbf": int(NOON) - 5}
    wanted = hmac.new(b"the-secret-key", f"{header}.{claims}".encode(), hashlib.sha256).digest()
    assert base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4)) == wanted
    assert "=" not in token


def test_a_token_is_kept_for_a_while_and_always_has_most_of_its_life_ahead() -> None:
    assert bearer("a:b", NOON) == bearer("a:b", NOON + TOKEN_STEP - 1)
    assert bearer("a:b", NOON) != bearer("a:b", NOON + TOKEN_STEP)
    late = opened(bearer("a:b", NOON + TOKEN_STEP - 1).split(".")[1])["exp"]
    assert isinstance(late, int)
    assert late - (NOON + TOKEN_STEP - 1) > TOKEN_LIVES / 2
