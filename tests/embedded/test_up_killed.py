"""`tracker up` when its children, or it itself, are killed in every way."""

import os
import signal
import sys
from pathlib import Path

import psycopg
import pytest

from tests.embedded.launched import CHILDREN, Up, about
from tracker.embedded.child import eventually
from tracker.settings import attach, load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="they look into /proc")


def test_a_killed_child_is_back_within_5_seconds_again_and_again(up: Up) -> None:
    for name in (*CHILDREN, *CHILDREN, "postgres"):
        before = up.pids[name]
        os.kill(before, signal.SIGKILL)
        assert eventually(lambda: up.pids.get(name) not in {None, before}, 5), (name, up.said)  # noqa: B023 - asked at once
    for said in (up.said, (up.home / "logs" / "supervisor.log").read_text()):
        assert {name: said.count(f"{name} has ended (killed by SIGKILL)") for name in CHILDREN} == dict.fromkeys(
            CHILDREN, 2
        ) | {"postgres": 3}
        assert {name: said.count(f"{name} was started again") for name in CHILDREN} == dict.fromkeys(CHILDREN, 2) | {
            "postgres": 3
        }


def test_nothing_acknowledged_is_lost_when_both_servers_are_killed(up: Up) -> None:
    url = attach(load({"TRACKER_HOME": str(up.home)}, dotenv=None)).required("database_url")
    assert eventually(
        lambda: bool(ask(url, "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 42 AS answer; SELECT true")), 5
    ), up.said
    before = up.pids
    for name in ("postgres", "valkey"):
        os.kill(before[name], signal.SIGKILL)
    assert eventually(
        lambda: before["postgres"] != up.pids["postgres"] and ask(url, "SELECT answer FROM kept") == (42,), 5
    ), up.said
    assert eventually(lambda: up.pids["valkey"] not in {None, before["valkey"]}, 5)


def ask(url: str, sql: str) -> object:
    """The last answer, or None while the server is away."""
    try:
        with psycopg.connect(url) as connection:
            cursor = connection.execute(sql)
            while cursor.nextset():
                pass
            return cursor.fetchone()
    except psycopg.OperationalError:
        return None


def test_a_killed_supervisor_leaves_no_orphan_and_the_next_one_recovers(home: Path) -> None:
    first = Up(home).ready()
    family = first.family()
    assert len(family) >= len(CHILDREN) + 2  # with the worker's two
    first.end(signal.SIGKILL)
    assert eventually(lambda: not first.family(), 5), [about(pid) for pid in first.family()]
    second = Up(home).ready()
    assert second.state["ports"] == first.state["ports"]
    assert second.end() == 0


def test_the_next_one_recovers_at_once_while_the_old_servers_still_end(home: Path) -> None:
    first = Up(home).ready()
    first.end(signal.SIGKILL)
    second = Up(home).ready()
    assert second.end() == 0
    assert not second.family()


def test_a_server_that_a_killed_supervisor_left_running_is_stopped_first(home: Path) -> None:
    first = Up(home).ready()
    postmaster = first.pids["postgres"]
    os.kill(postmaster, signal.SIGSTOP)  # it cannot follow the kernel's order to end
    first.end(signal.SIGKILL)
    second = Up(home).ready()
    assert "an earlier tracker ended without stopping these" in second.said
    assert second.pids["postgres"] != postmaster
    assert second.end() == 0
