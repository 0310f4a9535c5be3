"""Alive, ready, figures, and a database or Redis that is away."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest
import requests
from pydantic import SecretStr
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as NoConnectionLeft

from tracker import wiring
from tracker.store import db
from tracker.store.migrations import migrate


def _plain(api: Any, path: str) -> requests.Response:
    return requests.get(api.url + path, timeout=20)


def test_probes_need_no_key(shared_api: Any) -> None:
    assert _plain(shared_api, "/healthz").json() == {"alive": True}
    state = _plain(shared_api, "/readyz")
    assert (state.status_code, state.json()["ready"], state.json()["broker"]) == (200, True, True)
    assert {"tick_age", "lag"} <= state.json().keys()


def test_deep_readiness_asks_for_the_tick_too(shared_api: Any) -> None:
    told = shared_api.problem(_plain(shared_api, "/readyz?deep=1"), 503, "not_ready")
    assert told["tick_age"] is None


def test_deep_readiness_asks_for_the_poll_workers_too(api: Any) -> None:
    with api.services.database.transaction() as tx:
        now = db.now(tx)
        db.beat(tx, "tick", now)
        db.beat(tx, "batch sent", now - timedelta(seconds=20))
    assert _plain(api, "/readyz?deep=1").json()["untaken"] is None
    with psycopg.connect(api.settings.required("database_url")) as connection:
        connection.execute("UPDATE heartbeats SET at = at - interval '20 s' WHERE name = 'batch sent'")
    told = api.problem(_plain(api, "/readyz?deep=1"), 503, "not_ready")
    assert 40 <= told["untaken"] < 60
    assert _plain(api, "/readyz").status_code == 200


def test_figures(shared_api: Any) -> None:
    shared_api.register("counted")
    text = _plain(shared_api, "/metrics").text
    assert 'tracker_generations{provider="luma",state="registered"}' in text
    assert "tracker_poll_lag_seconds 0." in text or "tracker_poll_lag_seconds " in text
    assert 'tracker_http_request_seconds_count{method="POST",route="/v1/generations",status="201"}' in text


def test_figures_need_an_admin_key_when_others_can_reach_us(settings: Any, services: Any, client_of: Any) -> None:
    with client_of(settings.changed(api_host="0.0.0.0"), services) as api:
        assert _plain(api, "/metrics").status_code == 401
        api.problem(api.with_key("read").get("/metrics"), 403, "forbidden")
        assert api.get("/metrics").status_code == 200


def test_an_old_schema_is_not_ready(api: Any) -> None:
    migrate(api.settings.required("database_url"), "-1")
    told = api.problem(_plain(api, "/readyz"), 503, "not_ready")
    assert "tracker migrate" in told["detail"]


def test_a_database_that_is_away_is_503_and_comes_back(api: Any) -> None:
    url = api.settings.required("database_url")
    name = url.rpartition("/")[2]
    with psycopg.connect(url.removesuffix(name) + "postgres", autocommit=True) as other:
        other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
        answer = api.get("/v1/generations")
        api.problem(answer, 503, "unavailable")
        assert answer.headers["retry-after"] == "5"
        assert name not in answer.text
        api.problem(_plain(api, "/readyz"), 503, "unavailable")
        assert _plain(api, "/healthz").status_code == 200
        other.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert api.get("/v1/generations").status_code == 200


class _DeadlockError(Exception):
    sqlstate = "40P01"


@pytest.mark.parametrize(
    "passing", [NoConnectionLeft("the pool is empty"), OperationalError("SELECT", {}, _DeadlockError("deadlock"))]
)
def test_what_asking_again_mends_is_503(shared_api: Any, monkeypatch: pytest.MonkeyPatch, passing: Exception) -> None:
    def raises(*_: Any) -> None:
        raise passing

    monkeypatch.setattr(shared_api.services.generations, "page", raises)
    shared_api.problem(shared_api.get("/v1/generations"), 503, "unavailable")


def test_registering_works_while_redis_is_away(settings: Any, client_of: Any) -> None:
    away = SecretStr("redis://127.0.0.1:1/0")
    built = wiring.build(settings.changed(redis_url=away, broker_url=away))
    with client_of(settings.changed(redis_url=away), built) as api:
        assert api.register()["state"] == "registered"
        state = _plain(api, "/readyz")
        assert (state.status_code, state.json()["broker"], state.json()["healthy"]) == (200, False, False)
        api.problem(_plain(api, "/readyz?deep=1"), 503, "not_ready")
    built.close()


def test_what_breaks_inside_is_not_shown(
    api: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("a secret detail")

    monkeypatch.setattr(api.services.generations, "page", broken)
    answer = api.get("/v1/generations", headers={"X-Request-ID": "find-me"})
    assert api.problem(answer, 500, "internal")["request_id"] == "find-me"
    assert "secret detail" not in answer.text
    assert "find-me" in caplog.text
    assert "a secret detail" in caplog.text


def test_the_documentation_needs_nothing_from_elsewhere(shared_api: Any) -> None:
    page = _plain(shared_api, "/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "//" not in page.text.replace("<!doctype", "")
    script = page.text.partition('src="')[2].partition('"')[0]
    assert _plain(shared_api, script).headers["content-type"].startswith("text/javascript")


def test_the_description_is_whole(shared_api: Any) -> None:
    found = _plain(shared_api, "/openapi.json").json()
    operations = [op for path in found["paths"].values() for op in path.values()]
    assert len({op["operationId"] for op in operations}) == len(operations) > 40
    for op in operations:
        assert op["summary"], op
        assert op["tags"], op
        assert all("anyOf" not in parameter["schema"] for parameter in op.get("parameters", [])), op
        for status, response in op["responses"].items():
            if int(status) >= 400:
                assert response["content"].keys() == {"application/problem+json"}
    assert found["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    assert (
        found["paths"]["/v1/generations"]["post"]["requestBody"]["content"]["application/json"]["example"]["provider"]
        == "luma"
    )
