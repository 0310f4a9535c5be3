"""The tracker in a provider's place: a client of the provider changes its base URL, and reads what it always read."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from tracker.core.generation import ErrorCode, Failure, State
from tracker.providers.dropin import DROP_INS
from tracker.services.forms import CredentialForm
from tracker.store import db, generations

from .conftest import Api, _uuid

OWN_KEY = "sk-of-the-provider-0123456789"
BODY = b'{"id": "task-1", "state": "completed",  "video": {"url": "https://files.example.com/video.mp4"}}'


def ask(api: Api, path: str, **headers: str) -> requests.Response:
    return requests.get(api.url + path, headers=headers, timeout=10)


def bearer(api: Api, path: str, key: str | None = None) -> requests.Response:
    return ask(api, path, authorization=f"Bearer {key or api.key}")


def keep(api: Api, generation: dict[str, Any], body: bytes) -> None:
    with api.services.database.transaction() as tx:
        generations.keep_answers(tx, [(_uuid(generation["id"]), body)], db.now(tx))


def account(api: Api, provider: str, key: str = OWN_KEY, name: str = "own", project: str = "default") -> None:
    form = CredentialForm(providers=[provider], base_url="http://127.0.0.1:9", api_key=SecretStr(key))
    api.services.credentials.put(api.services.keys.project(project, make=True).project_id, name, form)


def filled(provider: str, task_id: str) -> str:
    path = DROP_INS[provider].paths[0].replace("{task_id:path}", task_id).replace("{task_id}", task_id)
    query = {"yunwu": f"?id={task_id}", "minimax": f"?task_id={task_id}"}
    return path.replace("{kind}", "text2video") + query.get(provider, "")


def test_the_providers_own_body_comes_back_to_the_byte(api: Api) -> None:
    made = api.register("task-1")
    keep(api, made, BODY)
    got = bearer(api, "/luma/generations/task-1")
    assert (got.status_code, got.content, got.headers["content-type"]) == (200, BODY, "application/json")


@pytest.mark.parametrize("provider", DROP_INS)
def test_each_provider_waits_misses_and_refuses_in_its_own_shape(api: Api, provider: str) -> None:
    account(api, provider)
    api.register("task-1", provider=provider, credential="own")
    place = DROP_INS[provider]
    waiting = bearer(api, filled(provider, "task-1"), OWN_KEY)
    assert (waiting.status_code, waiting.json()) == (200, json.loads(json.dumps(place.waiting("task-1"))))
    missing = bearer(api, filled(provider, "task-2"), OWN_KEY)
    assert (missing.status_code, missing.json()) == place.missing
    for key in ("sk-somebody-elses", "trk_" + "a" * 40, ""):
        refused = bearer(api, filled(provider, "task-1"), key or " ")
        assert (refused.status_code, refused.json()) == place.refused
    assert ask(api, filled(provider, "task-1")).json() == place.refused[1], "without any key"


def test_keys_are_taken_where_the_providers_clients_show_them(api: Api) -> None:
    for provider, headers in (
        ("vidu", {"authorization": f"Token {OWN_KEY}"}),
        ("veo", {"x-goog-api-key": OWN_KEY}),
        ("midjourney", {"mj-api-secret": OWN_KEY}),
    ):
        account(api, provider, name=provider)
        api.register("task-1", provider=provider, credential=provider)
        assert ask(api, filled(provider, "task-1"), **headers).status_code == 200


def test_an_operations_name_with_slashes_is_one_id(api: Api) -> None:
    account(api, "veo")
    name = "models/veo-3/operations/abc"
    api.register(name, provider="veo", credential="own")
    assert bearer(api, f"/veo/v1beta/{name}").json() == {"name": name, "done": False}


def test_a_provider_key_opens_its_own_accounts_tasks_alone(api: Api) -> None:
    account(api, "luma")
    account(api, "luma", "sk-another", "another")
    account(api, "luma", OWN_KEY, "theirs", project="second")
    keep(api, api.register("mine", credential="own"), b'{"id": "mine"}')
    keep(api, api.register("others", credential="another"), b'{"id": "others"}')
    theirs = api.with_key("write", project="second")
    keep(api, theirs.register("second", credential="theirs"), b'{"id": "second"}')
    assert bearer(api, "/luma/generations/mine", OWN_KEY).json() == {"id": "mine"}
    assert bearer(api, "/luma/generations/second", OWN_KEY).json() == {"id": "second"}, (
        "one key, accounts of two projects"
    )
    assert bearer(api, "/luma/generations/others", OWN_KEY).status_code == 400
    assert bearer(api, "/luma/generations/mine", "sk-another").status_code == 400
    # An account's key is no key for its other providers.
    assert bearer(api, "/suno/fetch/mine", OWN_KEY).status_code == 401


def test_a_trk_key_sees_its_own_project_alone_and_needs_to_read(api: Api) -> None:
    api.register("task-1")
    assert bearer(api, "/luma/generations/task-1", api.with_key("read").key).status_code == 200
    assert bearer(api, "/luma/generations/task-1", api.with_key("read", project="second").key).status_code == 400


def test_what_we_ended_shows_what_the_provider_said(api: Api) -> None:
    made = api.register("task-1")
    keep(api, made, b'{"id": "task-1", "state": "processing"}')
    api.move(made["id"], State.CANCELLED)
    assert bearer(api, "/luma/generations/task-1").json()["state"] == "processing"


def test_what_ended_before_the_provider_said_anything_is_missing(api: Api) -> None:
    made = api.register("task-1")
    api.move(made["id"], State.FAILED, error=Failure(ErrorCode.NOT_FOUND, "gone"))
    got = bearer(api, "/luma/generations/task-1")
    assert (got.status_code, got.json()) == DROP_INS["luma"].missing


def test_hostile_ids_are_missing(api: Api) -> None:
    for path in ("/luma/generations/%00", "/luma/generations/a%2F..%2Fb", "/veo/v1beta/a%00b"):
        assert bearer(api, path).status_code in {400, 404}


def test_paths_that_only_look_alike_are_ours(api: Api) -> None:
    for path in ("/luma/generations", "/luma/generations/a/b", "/kling/v1/videos/a"):
        got = bearer(api, path)
        assert (got.status_code, got.headers["content-type"]) == (404, "application/problem+json")
