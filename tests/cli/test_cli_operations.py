"""`tracker doctor` names what is wrong and the mend."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import psycopg
from cryptography.fernet import Fernet

from tracker.store import db
from tracker.wiring import Services


def findings(cli: Any, code: int = 0, **options: Any) -> dict[str, dict[str, str]]:
    import json

    said = cli("doctor", "--json", code=code, **options).stdout
    return {finding["subject"]: finding for finding in json.loads(said)["findings"]}


def rung(services: Services) -> None:
    with services.database.transaction() as tx:
        db.beat(tx, "tick", db.now(tx))


def test_a_healthy_installation(cli: Any, services: Services) -> None:
    rung(services)
    said = cli("doctor").stdout
    assert "nothing is wrong" in said
    assert "WRONG" not in said


def test_a_misspelt_variable_is_recognised(cli: Any, services: Services) -> None:
    rung(services)
    found = findings(cli, variables={"TRACKER_LUMA_APIKEY": "x"})["variables"]
    assert found["verdict"] == "warning"
    assert found["mend"] == "did you mean TRACKER_LUMA_API_KEY?"


def test_beat_that_does_not_ring(cli: Any, services: Services) -> None:
    assert findings(cli, code=1)["beat"]["said"] == "it has never rung"
    with services.database.transaction() as tx:
        db.beat(tx, "tick", db.now(tx) - timedelta(minutes=5))
    assert findings(cli, code=1)["beat"]["said"] == "it rang last 300 s ago"


def test_a_database_that_is_away_and_one_that_is_old(cli: Any, empty_database_url: str) -> None:
    away = findings(cli, code=1, variables={"TRACKER_DATABASE_URL": "postgresql://a:hunter2hunter2@127.0.0.1:9/x"})[
        "database"
    ]
    assert (away["verdict"], away["mend"]) == ("wrong", "start it, or correct TRACKER_DATABASE_URL")
    assert "hunter2" not in away["said"]
    old = findings(cli, code=1, variables={"TRACKER_DATABASE_URL": empty_database_url})["schema"]
    assert (old["verdict"], old["mend"]) == ("wrong", "tracker migrate")


def test_a_broker_that_is_away(cli: Any, services: Services) -> None:
    rung(services)
    found = findings(
        cli, code=1, variables={"TRACKER_REDIS_URL": "redis://127.0.0.1:9", "TRACKER_BROKER_URL": "redis://127.0.0.1:9"}
    )
    assert (found["redis"]["verdict"], found["broker"]["verdict"]) == ("wrong", "wrong")


def test_keys_that_do_not_open_what_is_stored(cli: Any, services: Services) -> None:
    rung(services)
    found = findings(cli, code=1, variables={"TRACKER_SECRET_KEYS": Fernet.generate_key().decode()})["credential"]
    assert "none of its keys opens what is stored" in found["said"]
    assert found["mend"].startswith("add the key that was in use")


def test_stopped_work_and_work_that_is_late(
    cli: Any, services: Services, registered: Callable[..., dict[str, Any]]
) -> None:
    rung(services)
    registered("task-1")
    with psycopg.connect(services.settings.required("database_url")) as connection:
        connection.execute("UPDATE polls SET due_at = now() - interval '10 minutes'")
    cli("pause", "webhooks")
    found = findings(cli, code=1)
    assert found["webhooks"]["mend"] == "tracker resume webhooks"
    assert (found["queue poll"]["verdict"], "600 s late" in found["queue poll"]["said"]) == ("wrong", True)


def test_a_poll_worker_that_takes_nothing(
    cli: Any, services: Services, registered: Callable[..., dict[str, Any]]
) -> None:
    made = registered("task-1")
    rung(services)
    services.polling.dispatch()
    assert "worker poll" not in findings(cli)
    with psycopg.connect(services.settings.required("database_url")) as connection:
        connection.execute("UPDATE heartbeats SET at = at - interval '75 s' WHERE name = 'batch sent'")
    found = findings(cli, code=1)
    assert found["queue poll"]["verdict"] == "ok"
    assert found["worker poll"]["verdict"] == "wrong"
    assert "start the worker of queue `poll`" in found["worker poll"]["mend"]
    assert "no poll worker has taken one" in cli("show", made["id"], "--why").stdout


def test_nothing_runs(bare: Any) -> None:
    assert "start it with `tracker up`" in findings(bare, code=1)["servers"]["mend"]
