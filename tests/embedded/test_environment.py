"""The children's environment: complete, and nothing foreign in it."""

from datetime import timedelta
from pathlib import Path

from pydantic import SecretStr

from tracker.embedded import environment, roster
from tracker.settings import LOOPBACK, load

FERNET = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlYzE="
GIVEN = {
    "TRACKER_HOME": "/srv/tracker", "TRACKER_DATABASE_URL": "postgresql://u:p@db/x", "TRACKER_REDIS_URL": "redis://:r@cache/0", "TRACKER_API_PORT": "9000",
    "TRACKER_FLOWER_AUTH": "me:pw", "TRACKER_SECRET_KEYS": FERNET, "TRACKER_BOOTSTRAP_API_KEY": "trk_x", "TRACKER_EGRESS_ALLOW": "10.0.0.0/8,127.0.0.0/8",
    "TRACKER_LUMA_BASE_URL": "https://relay.example", "TRACKER_LUMA_API_KEY": "sk-1", "TRACKER_KLING_OFFICIAL_API_KEY": "sk-2", "TRACKER_WORKERS_POLL": "5",
    "TRACKER_ENDPOINT_DISABLE_AFTER": "P2DT0.5H", "TRACKER_DELIVERIES_KEPT": "604800",
}  # fmt: skip


def made(given: dict[str, str], *, own_database: bool = True, **base: str) -> dict[str, str]:
    return environment.complete(
        load(given, dotenv=None), base, own_database=own_database, simulator_url="http://127.0.0.1:8787"
    )


def test_a_child_reads_back_exactly_the_settings_of_the_supervisor() -> None:
    settings, child = load(GIVEN, dotenv=None), load(made(GIVEN), dotenv=None)
    broker = {"broker_url": SecretStr("redis://:r@cache/0"), "artifacts_url": "file:///srv/tracker/artifacts"}
    assert child.changed(given=frozenset()) == settings.changed(given=frozenset(), **broker)
    assert child.accounts["luma"].api_key == SecretStr("sk-1")
    assert (child.endpoint_disable_after, child.deliveries_kept) == (timedelta(days=2, hours=0.5), timedelta(days=7))
    assert child.reachable == ("10.0.0.0/8", "127.0.0.0/8")


def test_the_loopback_stays_reachable_when_nothing_was_said_about_it() -> None:
    plain = {name: value for name, value in GIVEN.items() if name != "TRACKER_EGRESS_ALLOW"}
    assert load(made(plain), dotenv=None).reachable == LOOPBACK


def test_variables_that_other_programs_prefer_to_ours_are_left_out() -> None:
    foreign = {"CELERY_BROKER_URL": "redis://elsewhere", "FLOWER_PORT": "1", "PGSSLMODE": "require", "PATH": "/bin"}
    assert {name for name in made(GIVEN, **foreign) if name in foreign} == {"PATH"}
    assert {name for name in made(GIVEN, own_database=False, **foreign) if name in foreign} == {"PATH", "PGSSLMODE"}


def test_the_demonstration_knows_nothing_of_what_is_configured() -> None:
    base = environment.without_settings({"TRACKER_LUMA_API_KEY": "sk", "PATH": "/bin"}, ["TRACKER_REDIS_URL", "OTHER"])
    assert base == {"PATH": "/bin", "TRACKER_REDIS_URL": ""}
    assert load(base, dotenv=None).embedded


def test_the_supervisors_own_dotenv_counts_and_the_one_where_children_start_does_not() -> None:
    ours: dict[str, str | None] = {
        "TRACKER_MY_RELAY_API_KEY": "sk",
        "TRACKER_API_PORT": "1",
        "TRACKER_EMPTY": None,
        "OTHER": "x",
    }
    found = environment.inherited(
        {"TRACKER_API_PORT": "2", "PATH": "/bin"}, ours, ["TRACKER_PUBLIC_URL", "TRACKER_API_PORT", "OTHER"]
    )
    assert found == {
        "TRACKER_MY_RELAY_API_KEY": "sk",
        "TRACKER_API_PORT": "2",
        "PATH": "/bin",
        "TRACKER_PUBLIC_URL": "",
    }


def test_no_secret_stands_on_a_command_line_and_the_simulator_knows_none() -> None:
    settings, variables = load(GIVEN, dotenv=None), made(GIVEN)
    members = [
        *roster.programs(settings, variables, Path("/logs"), Path("/run")),
        roster.flower(settings, variables, Path("/logs")),
    ]
    names = [member.name for member in members]
    assert names == [
        "simulator",
        "api",
        "beat",
        "worker-default",
        "worker-poll",
        "worker-webhook",
        "worker-download",
        "flower",
    ]
    secrets = [
        GIVEN[name]
        for name in ("TRACKER_DATABASE_URL", "TRACKER_FLOWER_AUTH", "TRACKER_SECRET_KEYS", "TRACKER_BOOTSTRAP_API_KEY")
    ]
    assert not [
        secret for secret in secrets for member in members if any(secret in part for part in member.child.command)
    ]
    assert not [name for name in members[0].child.environment if name.startswith("TRACKER_")]
    assert members[-1].child.environment["FLOWER_BASIC_AUTH"] == "me:pw"
    assert [member.stage for member in members] == [3, 6, 5, 4, 4, 4, 4, 3]
    assert members[4].child.command[members[4].child.command.index("-c") + 1] == "5"


def test_the_children_start_where_both_packages_can_be_imported() -> None:
    assert (roster.PROJECT / "tracker" / "embedded" / "roster.py").is_file()
    assert (roster.PROJECT / "workers").is_dir()
