"""The connection, the clock, the vault and the heartbeat."""

from __future__ import annotations

from datetime import timedelta

import pytest
from cryptography.fernet import Fernet
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tracker.errors import ConfigurationError
from tracker.store import db
from tracker.store.db import Database
from tracker.store.vault import Vault

from .conftest import Rows


def test_a_block_that_raises_leaves_nothing_behind(rows: Rows) -> None:
    def fails() -> None:
        with rows.database.transaction() as tx:
            tx.execute(text("INSERT INTO projects (id, name) VALUES (gen_random_uuid(), 'half')"))
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    assert rows.scalar("SELECT count(*) FROM projects WHERE name = 'half'") == 0
    assert rows.database.in_use == 0


def test_the_clock_is_the_servers_and_tests_move_it(rows: Rows) -> None:
    first = rows.now()
    rows.database.ahead = timedelta(hours=3)
    assert timedelta(hours=3) <= rows.now() - first < timedelta(hours=3, seconds=5)
    rows.database.ahead = timedelta(0)
    assert rows.now() - first < timedelta(seconds=10)


def test_a_server_that_is_away_is_told_from_a_wrong_question(rows: Rows) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(DBAPIError) as caught, away.transaction():
        pass
    assert db.unreachable(caught.value)
    with pytest.raises(DBAPIError) as caught, rows.database.transaction() as tx:
        tx.execute(text("SELECT nonsense"))
    assert not db.unreachable(caught.value)


def test_no_statement_is_compiled(rows: Rows) -> None:
    """Where a server can compile and the planner expects many rows, a claim takes ten times as long."""
    assert rows.scalar("SHOW jit") == "off"


def test_errors_do_not_show_what_was_sent(rows: Rows) -> None:
    with pytest.raises(DBAPIError) as caught, rows.database.transaction() as tx:
        tx.execute(text("SELECT nonsense, :secret"), {"secret": "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_the_heartbeat_tells_the_silence_before_it(rows: Rows) -> None:
    now = rows.now()
    with rows.database.transaction() as tx:
        assert db.beat(tx, "tick", now) is None
        assert db.beat(tx, "tick", now + timedelta(seconds=7)) == timedelta(seconds=7)
        assert db.last_beat(tx, "tick") == now + timedelta(seconds=7)
        assert db.last_beat(tx, "other") is None


def test_secrets_outlive_a_rotation_of_their_keys() -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    stored = Vault(old).encrypt("s3cret")
    assert b"s3cret" not in stored
    both = Vault(f"{new},{old}")
    assert both.decrypt(stored) == "s3cret"
    assert not both.is_newest(stored)
    assert both.is_newest(both.encrypt("s3cret"))
    assert Vault(new).decrypt(both.encrypt("s3cret")) == "s3cret"
    assert Vault(old).look_up_hash("key") in both.look_up_hashes("key"), "found again under the old hash"
    assert both.look_up_hash("key") == Vault(new).look_up_hash("key")
    with pytest.raises(ConfigurationError, match="TRACKER_SECRET_KEYS"):
        Vault(new).decrypt(stored)


@pytest.mark.parametrize("keys", ["", "nonsense", ","])
def test_wrong_keys_stop_the_start(keys: str) -> None:
    with pytest.raises(ConfigurationError, match="TRACKER_SECRET_KEYS"):
        Vault(keys)


def _backend(database: Database) -> int:
    with database.looking() as tx:
        return int(tx.execute(text("SELECT pg_backend_pid()")).scalar_one())


def test_a_connection_that_died_while_it_rested_is_replaced_unseen(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(db, "RESTED", 0.0)
    kept = _backend(rows.database)
    assert _backend(rows.database) == kept, "it is kept"
    other = Database(rows.database.engine.url.render_as_string(hide_password=False))
    with other.looking() as tx:
        assert tx.execute(text("SELECT pg_terminate_backend(:pid, 5000)"), {"pid": kept}).scalar_one()
    other.close()
    assert _backend(rows.database) != kept


def test_a_connection_that_was_just_used_is_not_asked_whether_it_lives(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(rows.database.engine.dialect, "do_ping", asked.append)
    assert _backend(rows.database) == _backend(rows.database)
    assert asked == []
    monkeypatch.setattr(db, "RESTED", 0.0)
    _backend(rows.database)
    assert len(asked) == 1


def test_each_statement_of_looking_stands_alone(rows: Rows) -> None:
    def fails() -> None:
        with rows.database.looking() as tx:
            tx.execute(text("INSERT INTO projects (id, name) VALUES (gen_random_uuid(), 'whole')"))
            raise LookupError

    with pytest.raises(LookupError):
        fails()
    assert rows.scalar("SELECT count(*) FROM projects WHERE name = 'whole'") == 1
    with rows.database.transaction() as tx:
        tx.execute(text("INSERT INTO projects (id, name) VALUES (gen_random_uuid(), 'half')"))
        tx.rollback()
    assert rows.scalar("SELECT count(*) FROM projects WHERE name = 'half'") == 0, "the next transaction is one again"
