"""Provider accounts and callbacks through the API."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import psycopg

from tracker.api import lists, schemas
from tracker.settings import Account

KEY = "sk-not-to-be-seen"


def test_a_credential_is_stored_and_its_key_never_shown(api: Any) -> None:
    answer = api.call(
        "PUT", "/v1/credentials/acme", json={"providers": ["luma"], "base_url": "http://127.0.0.1:9/", "api_key": KEY}
    )
    made = api.shows(answer, schemas.CredentialShown)
    assert (made["base_url"], made["has_api_key"], made["state"]) == ("http://127.0.0.1:9", True, "active")
    assert (made["requests_per_second"], made["concurrency"]) == (20, 50)
    changed = api.call("PUT", "/v1/credentials/acme", json={"concurrency": 7})
    assert (changed.json()["concurrency"], changed.json()["has_api_key"]) == (7, True)
    page = api.get("/v1/credentials")
    assert [c["name"] for c in api.shows(page, lists.CredentialPage)["data"]] == ["acme", "default"]
    assert not any(KEY in text for text in (answer.text, changed.text, page.text, api.get("/v1/credentials/acme").text))


def test_how_often_its_generations_are_asked_about(api: Any) -> None:
    fields = ("poll_price", "poll_longest")
    put = "/v1/credentials/acme"

    def shown(**sent: Any) -> tuple[Any, ...]:
        answer = api.shows(api.call("PUT", put, json=sent), schemas.CredentialShown)
        assert api.get(put).json()["updated_at"] == answer["updated_at"]
        return tuple(answer[name] for name in fields)

    assert shown(providers=["luma"]) == (None, None), "as the installation"
    assert shown(poll_price=0.05, poll_longest=20) == (0.05, 20)
    assert shown(concurrency=7) == (0.05, 20), "what is not sent stays"
    assert shown(poll_price=None) == (None, 20)
    for name, wrong in (("poll_price", 0), ("poll_price", 3601), ("poll_longest", 0.5), ("poll_longest", "often")):
        api.problem(api.call("PUT", put, json={name: wrong}), 422, "invalid", name)


def test_wrong_credentials_are_refused(shared_api: Any) -> None:
    put = "/v1/credentials/wrong"
    shared_api.problem(shared_api.call("PUT", put, json={}), 422, "invalid", "providers")
    slow = {"providers": ["luma"], "requests_per_second": 1e-300}
    shared_api.problem(shared_api.call("PUT", put, json=slow), 422, "invalid", "requests_per_second")
    shared_api.problem(shared_api.call("PUT", put, json={"providers": ["nobody"]}), 422, "invalid", "providers.0")
    shared_api.problem(
        shared_api.call("PUT", put, json={"providers": ["luma"], "base_url": "http://10.0.0.1"}),
        422,
        "invalid",
        "base_url",
    )
    shared_api.problem(
        shared_api.call("PUT", put, json={"providers": ["luma"], "concurrency": "7x"}), 422, "invalid", "concurrency"
    )
    told = shared_api.call("PUT", put, json={"providers": ["luma"], "api_key": {"sk": KEY}})
    shared_api.problem(told, 422, "invalid", "api_key")
    assert KEY not in told.text
    shared_api.problem(
        shared_api.call("PUT", "/v1/credentials/a%00b", json={"providers": ["luma"]}), 422, "invalid", "name"
    )
    shared_api.problem(
        shared_api.call("PUT", "/v1/credentials/" + "x" * 101, json={"providers": ["luma"]}), 422, "invalid", "name"
    )
    shared_api.problem(shared_api.get("/v1/credentials/nobody"), 404, "not_found")


def test_what_generations_wait_for_is_not_taken_away(api: Any) -> None:
    made = api.register()["id"]
    put = {"base_url": "http://127.0.0.1:9"}
    for answer in (api.call("DELETE", "/v1/credentials/default"), api.call("PUT", "/v1/credentials/default", json=put)):
        assert api.problem(answer, 409, "pending_generations")["count"] == 1
    assert api.call("PUT", "/v1/credentials/default?force=true", json=put).json()["base_url"] == put["base_url"]
    assert api.call("DELETE", "/v1/credentials/default?force=true").status_code == 204
    assert api.get(f"/v1/generations/{made}").json()["error"]["code"] == "credential_deleted"
    api.problem(api.get("/v1/credentials/default"), 404, "not_found")
    assert api.get("/v1/credentials").json()["data"] == []
    api.problem(api.get("/v1/credentials/default?force=perhaps"), 404, "not_found")
    api.problem(api.call("DELETE", "/v1/credentials/default?force=perhaps"), 422, "invalid", "force")


def test_resume_and_test(api: Any) -> None:
    assert api.shows(api.post("/v1/credentials/default/resume"), schemas.CredentialShown)["state"] == "active"
    api.call("PUT", "/v1/credentials/default", json={"base_url": "http://127.0.0.1:1", "api_key": KEY})
    tried = api.shows(api.post("/v1/credentials/default/test"), schemas.CredentialTest)
    assert tried["ok"] is False
    assert KEY not in str(tried)


def test_accounts_of_one_name_are_told_apart_by_their_provider(api: Any) -> None:
    accounts = {"luma-official": Account(base_url="http://127.0.0.1:1")}
    project_id = api.services.keys.project().project_id
    api.services.credentials.sync_environment(project_id, api.settings.changed(accounts=accounts))
    path, official = "/v1/credentials/default", "?provider=luma-official"
    with psycopg.connect(api.settings.required("database_url")) as connection:
        connection.execute(
            "UPDATE credentials SET state = 'paused', paused_reason = 'no credits', paused_at = now(), probe_at = now()"
            " WHERE environment_provider = 'luma-official'"
        )
    assert (api.get(path).json()["state"], api.get(path + official).json()["state"]) == ("active", "paused")
    assert api.post(f"{path}/test{official}").json()["ok"] is False
    resumed = api.shows(api.post(f"{path}/resume"), schemas.CredentialShown)
    assert (resumed["providers"], resumed["state"]) == (["luma-official"], "active")
    assert api.get(path + official).json()["state"] == "active"
    api.problem(api.post(f"{path}/resume?provider=kling"), 404, "not_found")


def test_a_callback_is_taken_from_anybody_who_has_the_token(api: Any) -> None:
    api.register("a-task-id")
    path = urlsplit(api.get("/v1/credentials/default").json()["callback_url"]).path
    nobody = {"Authorization": None}
    bodies = [
        b"",
        b'{"task": {"id": "a-task-id"}}',
        b'["unknown", "\\ud800 half", "n\\u0000l"]',
        b"\xff\xff",
        b"{",
        b"[" * 100_000,
        b"7",
    ]
    for body in bodies:
        answer = api.call("POST", path, data=body, headers=nobody)
        assert api.shows(answer, schemas.CallbackTaken) == {"received": True}, body[:20]
    api.problem(api.call("POST", path, data=b"x" * 300_000, headers=nobody), 413, "too_large")
    api.problem(api.call("POST", path + "x", data=b"{}", headers=nobody), 404, "not_found")
    api.problem(api.call("POST", "/callbacks/luma/%00", data=b"{}", headers=nobody), 422, "invalid", "token")
