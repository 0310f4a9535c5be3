"""`tracker up` as a person meets it: a real supervisor and real servers in processes of their own."""

import json
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
import redis

from tests.embedded.launched import ROOT, Up, about, listening
from tracker.embedded import ports
from tracker.embedded.fresh import remove
from tracker.settings import Home, Settings, attach, load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they look into /proc")


def test_the_home_is_closed_and_a_door_beside_it_finds_everything(up: Up) -> None:
    modes = {
        name: stat.S_IMODE((up.home / name).stat().st_mode)
        for name in (".", "logs", "secrets.json", "api-key", "state.json")
    }
    assert modes == {".": 0o700, "logs": 0o700, "secrets.json": 0o600, "api-key": 0o600, "state.json": 0o600}
    found = attach(load({"TRACKER_HOME": str(up.home)}, dotenv=None))
    with psycopg.connect(found.required("database_url")) as connection:
        assert connection.execute("SELECT current_setting('fsync'), lower('Ä')").fetchone() == ("on", "ä")
    assert redis.Redis.from_url(found.required("redis_url")).config_get("appendonly") == {"appendonly": "yes"}
    assert found.required("bootstrap_api_key").startswith("trk_")
    assert len(found.required("bootstrap_api_key")) == 44
    secrets = [*json.loads((up.home / "secrets.json").read_text()).values(), found.required("bootstrap_api_key")]
    assert not [secret for secret in secrets if secret in (up.home / "state.json").read_text()]
    lines = [about(pid).split(b"TRACKER_", 1)[0] for pid in [*up.pids.values(), up.process.pid]]
    assert not [line for line in lines for secret in secrets if secret.encode() in line.split(b" PATH=")[0]]


def test_servers_answer_on_the_loopback_with_the_password_alone(up: Up) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://tracker:wrong@127.0.0.1:{up.state['ports']['postgres']}/tracker")
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=up.state["ports"]["valkey"], retry=None).ping()
    assert {listening(up.state["ports"][name]) for name in ("postgres", "valkey")} == {("127.0.0.1",)}


def test_a_second_one_on_the_same_home_says_so_in_one_line(up: Up) -> None:
    second = Up(up.home)
    assert second.process.wait(20) == 1
    assert second.said.count("\n") == 1
    assert (
        f"a tracker already runs on {up.home} at http://127.0.0.1:{up.state['ports']['api']} (process {up.process.pid})"
        in second.said
    )
    assert up.process.poll() is None


def test_a_port_left_at_its_default_moves_and_one_that_was_set_does_not(up: Up, tmp_path: Path) -> None:
    beside = Up(tmp_path / "beside").ready()
    try:
        assert not set(beside.state["ports"].values()) & set(up.state["ports"].values())
        assert all(port < 32_768 for port in beside.state["ports"].values())
        assert f"http://127.0.0.1:{beside.state['ports']['api']}/docs" in beside.said
    finally:
        beside.end()
        remove(Settings(home=beside.home))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = Up(tmp_path / "refused", TRACKER_FLOWER_PORT=str(port))
        assert refused.process.wait(20) == 2
    assert (
        refused.said
        == f"tracker: TRACKER_FLOWER_PORT: port {port} is taken or not allowed; free it, choose another, or unset it to take the next free one\n"
    )


def test_an_address_that_is_not_ours_names_the_variable(home: Path) -> None:
    tracker = Up(home, TRACKER_API_HOST="192.0.2.1")
    assert tracker.process.wait(20) == 2
    assert (
        tracker.said == "tracker: TRACKER_API_HOST: nothing can listen on 192.0.2.1; use an address of this machine\n"
    )


def test_a_configured_server_is_not_started_and_its_secrets_must_be_given(up: Up, tmp_path: Path) -> None:
    found = attach(load({"TRACKER_HOME": str(up.home)}, dotenv=None))
    given = {"TRACKER_DATABASE_URL": found.required("database_url")}
    without = Up(tmp_path / "without", **given)
    assert without.process.wait(20) == 2
    assert "TRACKER_SECRET_KEYS: is not set" in without.said
    secrets = {
        name: found.required(name.removeprefix("TRACKER_").lower())
        for name in ("TRACKER_SECRET_KEYS", "TRACKER_FLOWER_AUTH", "TRACKER_BOOTSTRAP_API_KEY")
    }
    beside = Up(tmp_path / "given", **given, **secrets).ready()
    try:
        assert "postgres" not in beside.pids
        assert "valkey" in beside.pids
        assert "simulator" not in beside.state["ports"]
        assert not Home(beside.home).api_key.exists()
    finally:
        beside.end()
        remove(Settings(home=beside.home))


def test_secrets_stay_the_same_from_start_to_start(home: Path) -> None:
    kept = []
    for _ in range(2):
        assert Up(home).ready().end(signal.SIGINT) == 0
        kept.append([(home / name).read_text() for name in ("secrets.json", "api-key")])
    assert kept[0] == kept[1]


def test_a_home_without_its_secrets_starts_anew_and_keeps_the_old_database(home: Path) -> None:
    first = Up(home).ready()
    first.end()
    (home / "secrets.json").unlink()
    second = Up(home).ready()
    aside = Path(first.state["database_directory"], "postgres.earlier")
    assert f"was moved to {aside}" in second.said.replace("\n", "")
    assert (aside / "PG_VERSION").exists()
    second.end()


def test_a_stop_ends_everything_in_order_and_says_how_long_it_took(home: Path) -> None:
    up = Up(home).ready()
    family = up.family()
    assert up.end(signal.SIGINT) == 0
    assert not [pid for pid in family if about(pid)]
    assert up.state["pid"] is None
    assert "everything is stopped" in up.said
    assert "was killed" not in up.said
    postgres = (up.home / "logs" / "postgres.log").read_text()
    assert "received fast shutdown request" in postgres
    assert "database system is shut down" in postgres


def test_a_program_that_never_gets_ready_ends_the_start_with_its_own_words(home: Path) -> None:
    tracker = Up(home, STANDIN_BROKEN="the disk is full")
    assert tracker.process.wait(30) == 1
    assert "tracker: worker did not get ready" in tracker.said
    assert "the disk is full" in tracker.said
    assert not tracker.family()


def test_ports_are_never_handed_out_twice() -> None:
    found = [ports.free_port(21_000) for _ in range(5)]
    assert len(set(found)) == 5
    assert found == sorted(found)
    other = subprocess.run(
        [sys.executable, "-c", "from tracker.embedded.ports import free_port; print(free_port(21000))"],
        env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert int(other) not in found
    for port in found:
        ports.release(port)
