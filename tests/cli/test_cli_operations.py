"""`tracker doctor` names what is wrong and the mend."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from tests.cli.lapses import lapse
from tracker.cli import checks
from tracker.services.forms import CredentialForm, EndpointForm
from tracker.settings import Settings
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
    assert 300 <= lapse(findings(cli, code=1)["beat"]["said"], "it rang last N s ago") < 360


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


def change(services: Services, statement: str, *values: Any) -> None:
    with psycopg.connect(services.settings.required("database_url")) as connection:
        assert connection.execute(statement, values).rowcount > 0


def test_work_that_is_late_and_work_that_is_stopped(
    cli: Any, services: Services, registered: Callable[..., dict[str, Any]]
) -> None:
    rung(services)
    registered("task-1")
    change(services, "UPDATE polls SET due_at = now() - interval '10 minutes'")
    late = findings(cli, code=1)["queue poll"]
    assert late["verdict"] == "wrong"
    assert 600 <= lapse(late["said"], "work is N s late") < 660
    assert "is the worker of queue `poll` running?" in late["mend"]
    cli("pause", "polls", "--reason", "maintenance")
    cli("pause", "webhooks")
    found = findings(cli)
    assert (found["polls"]["verdict"], "maintenance" in found["polls"]["said"]) == ("warning", True)
    assert found["polls"]["mend"] == "tracker resume polls"
    assert found["webhooks"]["mend"] == "tracker resume webhooks"
    assert {"queue poll", "queue webhook"} & found.keys() == set(), "who stopped them knows that they are late"


@pytest.mark.parametrize(
    ("account", "said", "mend"),
    [
        ("tokens = 0.4, refilled_at = now()", "its requests_per_second (20) are used up", "raise them"),
        ("concurrency = 1", "its concurrency (1) is used up", "raise it"),
        ("failing = 25", "has not answered 25 times in a row", "provider is down"),
        ("blocked_until = now() + interval '1 minute'", "asked us to wait", "lower its requests_per_second"),
    ],
)
def test_what_holds_an_account_back_is_named(cli: Any, services: Services, account: str, said: str, mend: str) -> None:
    rung(services)
    cli("register", "luma", "task-1")
    services.polling.dispatch()
    change(services, "UPDATE polls SET due_at = now() - interval '601 s'")
    change(services, f"UPDATE credentials SET {account}")
    found = findings(cli)
    assert found["queue poll"]["said"] == "nothing is late"
    assert 601 <= lapse(found["budget"]["said"], "default (luma) is N s late") < 660
    assert said in found["budget"]["said"]
    assert mend in found["budget"]["mend"]


@pytest.fixture
def hook(services: Services) -> str:
    """An endpoint, with one delivery that is ten minutes late."""
    project_id = services.keys.project().project_id
    made = services.endpoints.create(project_id, EndpointForm(url="http://127.0.0.1:9/hook", rate_limit=5))
    services.endpoints.test(project_id, made.id)
    change(services, "UPDATE deliveries SET due_at = now() - interval '10 minutes'")
    return made.url


def test_webhooks_that_nobody_sends(cli: Any, services: Services, hook: str) -> None:
    rung(services)
    late = findings(cli, code=1)["queue webhook"]
    assert late["verdict"] == "wrong"
    assert 600 <= lapse(late["said"], "work is N s late") < 660
    assert "is the worker of queue `webhook` running?" in late["mend"]


@pytest.mark.parametrize(
    ("receiver", "said"),
    [
        ("failing = 7, quiet_until = now() + interval '1 minute'", "it gave no answer 7 times in a row"),
        ("quiet_until = now() + interval '1 minute'", "it asked for a pause"),
        ("tokens = 0.2, refilled_at = now()", "its rate_limit (5) is used up"),
        ("in_flight_cap = 0", "it is slow"),
    ],
)
def test_a_receiver_that_holds_its_own_webhooks_back_is_named(
    cli: Any, services: Services, hook: str, receiver: str, said: str
) -> None:
    rung(services)
    change(services, f"UPDATE receivers SET {receiver}")
    found = findings(cli)
    assert found["queue webhook"]["said"] == "nothing is late"
    assert found["receiver"]["said"].startswith(f"{hook} is 600 s behind: {said}")


def test_a_replay_takes_its_time(cli: Any, services: Services, hook: str) -> None:
    rung(services)
    change(services, "UPDATE deliveries SET lane = 3")
    found = findings(cli)
    assert found["queue webhook"]["said"] == "nothing is late"
    assert found["receiver"] == {
        "subject": "receiver", "verdict": "ok", "said": f"{hook}: 1 replayed events wait for their turn", "mend": "",
    }  # fmt: skip


def test_downloads_that_nobody_makes(cli: Any, services: Services, registered: Callable[..., dict[str, Any]]) -> None:
    rung(services)
    registered("task-1")
    change(
        services,
        "INSERT INTO artifacts (generation_id, kind, index, project_id, source_url, fetch_by, due_at, created_at)"
        " SELECT id, 'video', 0, project_id, 'http://127.0.0.1:9/v.mp4', now(), now() - interval '100 s', now() FROM generations",
    )
    late = findings(cli)["queue download"]
    assert late["verdict"] == "warning"
    assert 100 <= lapse(late["said"], "work is N s late") < 160
    assert "TRACKER_WORKERS_DOWNLOAD" in late["mend"]


def test_accounts_of_every_project_are_looked_at(cli: Any, services: Services) -> None:
    rung(services)
    cli("keys", "create", "--project", "films")
    form = CredentialForm(providers=["luma"], base_url="http://127.0.0.1:9")
    services.credentials.put(services.keys.project("films").project_id, "studio", form)
    keyless = findings(cli)["credential"]
    assert (keyless["verdict"], keyless["said"]) == ("warning", "studio (luma) of films has no key")
    assert keyless["mend"] == "tracker credentials set studio --project films --api-key-stdin"
    change(
        services,
        "UPDATE credentials SET state = 'paused', paused_reason = 'no credits', paused_at = now(), probe_at = now()"
        " WHERE name = 'studio'",
    )
    paused = findings(cli, code=1)["credential"]
    assert (paused["verdict"], paused["said"]) == ("wrong", "studio (luma) of films is paused: no credits")
    assert paused["mend"] == "correct the account, then `tracker credentials resume studio --project films`"


def test_clocks_that_differ(services: Services) -> None:
    for ahead, verdict, said in ((0, "ok", ""), (10, "warning", "10.0 s behind"), (-90, "wrong", "90.0 s ahead of")):
        services.database.ahead = timedelta(seconds=ahead)
        [found] = [finding for finding in checks.database(services) if finding.subject == "clock"]
        assert (found.verdict, said in found.said) == (verdict, True)


def test_every_place_that_fills_is_measured(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"pid": 1, "database_directory": "/var/lib/generation-tracker/0123"}')
    home, database, copies = tmp_path.resolve(), Path("/var/lib/generation-tracker/0123"), Path("/srv/copies")
    embedded = Settings(home=tmp_path, artifacts_url="file:///srv/copies")
    assert checks.growing(embedded) == [home, database, copies]
    attached = embedded.changed(database_url=SecretStr("postgresql://127.0.0.1/tracker"))
    assert checks.growing(attached) == [home, database, copies]
    elsewhere = attached.changed(given=frozenset({"database_url"}), artifacts_url="s3://bucket/copies")
    assert checks.growing(elsewhere) == [home]
    verdicts = [checks.space(home, free).verdict for free in (3_000_000_000, 1_000_000_000, 1_000_000)]
    assert verdicts == ["ok", "warning", "wrong"]
    assert checks.space(home, 1_000_000).mend == "make room"


def test_a_home_that_others_can_read(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert list(checks.home(Settings(home=tmp_path))) == []
    tmp_path.chmod(0o750)
    [found] = checks.home(Settings(home=tmp_path))
    assert (found.verdict, found.mend) == ("wrong", f"chmod 700 {tmp_path}")


def test_a_database_of_a_newer_version(cli: Any, services: Services) -> None:
    change(services, "UPDATE alembic_version SET version_num = '9999'")
    found = findings(cli, code=1)["schema"]
    assert (found["said"], found["mend"]) == (
        "at 9999, which is newer than this program",
        "install the version that made it",
    )
    assert "a newer version made it" in cli("list", code=1).stderr


def test_a_database_that_takes_no_writes(cli: Any, services: Services) -> None:
    rung(services)
    url = services.settings.required("database_url")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"ALTER DATABASE {url.rpartition('/')[2]} SET default_transaction_read_only = on")
    found = findings(cli, code=1)
    assert "takes no writes" in found["database"]["said"]
    assert found["credential"]["verdict"] == "ok", "the rest is looked at all the same"


def test_webhook_secrets_are_tried_too(cli: Any, services: Services, hook: str) -> None:
    rung(services)
    assert findings(cli, code=1)["secrets"]["verdict"] == "ok"
    change(services, "DELETE FROM credentials")
    lost = findings(cli, code=1, variables={"TRACKER_SECRET_KEYS": Fernet.generate_key().decode()})["secrets"]
    assert lost["said"] == "2 of 2 webhook secrets and headers are encrypted with a key that is not here"


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
