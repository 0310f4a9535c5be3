"""`Prefer: wait`: answers when something changes, and holds nothing while it waits."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from pydantic import SecretStr

from tracker.core.generation import State


def _wait(api: Any, path: str, seconds: int, **headers: str) -> tuple[float, requests.Response]:
    began = time.monotonic()
    answer = requests.get(
        api.url + path,
        headers={"Authorization": f"Bearer {api.key}", "Prefer": f"wait={seconds}", **headers},
        timeout=30,
    )
    return time.monotonic() - began, answer


def _waiting(api: Any) -> int:
    context = api.context
    return len(context.versions._waiters)


@pytest.mark.parametrize("redis_works", [True, False])
def test_a_change_ends_the_wait(api: Any, redis_works: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    made = api.register()["id"]
    if not redis_works:
        monkeypatch.setattr(api.services.bell, "changed", lambda _: None)
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(_wait, api, f"/v1/generations/{made}", 20)
        api.until(lambda: _waiting(api) == 1, 5, "somebody waits")
        api.move(made, State.PROCESSING)
        seconds, answer = waited.result()
    assert answer.json()["state"] == "processing"
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.headers["etag"] == 'W/"2"'
    assert seconds < 5


def test_the_wait_ends_by_itself(api: Any) -> None:
    path = f"/v1/generations/{api.register()['id']}"
    seconds, answer = _wait(api, path, 1)
    assert (answer.status_code, answer.json()["state"]) == (200, "registered")
    assert 1 <= seconds < 3
    assert _wait(api, path, 1, **{"If-None-Match": 'W/"1"'})[1].status_code == 304


def test_no_wait_when_the_answer_is_known_to_differ_or_final(api: Any) -> None:
    made = api.register()["id"]
    path = f"/v1/generations/{made}"
    assert _wait(api, path, 30, **{"If-None-Match": 'W/"77"'})[0] < 5
    api.move(made, State.COMPLETED)
    seconds, answer = _wait(api, path, 30, **{"If-None-Match": 'W/"2"'})
    assert (answer.status_code, answer.headers["preference-applied"]) == (304, "wait=30")
    assert seconds < 5


@pytest.mark.parametrize("wish", ["wait", "wait=soon", "wait=-1", "respond-async", "wait=0"])
def test_a_wish_that_cannot_be_read_is_no_wish(api: Any, wish: str) -> None:
    answer = api.get(f"/v1/generations/{api.register()['id']}", headers={"Prefer": wish}, timeout=5)
    assert answer.status_code == 200


def test_a_deleted_one_ends_the_wait(api: Any) -> None:
    made = api.register()["id"]
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(_wait, api, f"/v1/generations/{made}", 20)
        api.until(lambda: _waiting(api) == 1, 5, "somebody waits")
        api.call("DELETE", f"/v1/generations/{made}")
        assert waited.result()[1].status_code == 404


def test_many_waiters_hold_neither_threads_nor_connections(api: Any) -> None:
    ids = [api.register(f"t{n}")["id"] for n in range(60)]
    with ThreadPoolExecutor(60) as pool:
        waits = [pool.submit(_wait, api, f"/v1/generations/{id_}", 30) for id_ in ids]
        api.until(lambda: _waiting(api) == 60, 20, "all wait")
        # More wait than there are threads (40) and connections, and everything else goes on.
        assert api.get("/v1/generations", timeout=5).status_code == 200
        api.until(lambda: api.services.database.in_use == 0, 5, "a moment without any connection in use")
        for id_ in ids:
            api.call("POST", f"/v1/generations/{id_}/cancel")
        assert {wait.result()[1].json()["state"] for wait in waits} == {"cancelled"}
    assert _waiting(api) == 0


def test_a_client_that_leaves_waits_no_longer(api: Any) -> None:
    made = api.register()["id"]
    host, port = api.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(
            f"GET /v1/generations/{made} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {api.key}\r\nPrefer: wait=60\r\n\r\n".encode()
        )
        api.until(lambda: _waiting(api) == 1, 5, "somebody waits")
    api.until(lambda: _waiting(api) == 0, 5, "nobody waits")


def test_when_too_many_wait_the_answer_comes_at_once(api: Any) -> None:
    path = f"/v1/generations/{api.register()['id']}"
    api.context.versions._most = 0
    seconds, answer = _wait(api, path, 20)
    assert (answer.status_code, "preference-applied" in answer.headers) == (200, False)
    assert seconds < 5


def test_a_stop_lets_everybody_go(api: Any) -> None:
    path = f"/v1/generations/{api.register()['id']}"
    with ThreadPoolExecutor() as pool:
        waited = pool.submit(_wait, api, path, 60)
        api.until(lambda: _waiting(api) == 1, 5, "somebody waits")
        api.context.close()
        seconds, answer = waited.result()
    assert (answer.status_code, answer.json()["state"]) == (200, "registered")
    assert seconds < 5


def test_waiting_survives_a_redis_that_is_not_there(settings: Any, services: Any, client_of: Any) -> None:
    away = settings.changed(redis_url=SecretStr("redis://127.0.0.1:1/0"))
    with client_of(away, services) as api:
        made = api.register()["id"]
        done = threading.Timer(0.3, lambda: api.move(made, State.QUEUED))
        done.start()
        seconds, answer = _wait(api, f"/v1/generations/{made}", 20)
        done.join()
    assert answer.json()["state"] == "queued"
    assert seconds < 5
