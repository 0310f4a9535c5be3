"""Real servers for the whole suite: one embedded PostgreSQL and one embedded Valkey per run; a fresh database per test, cloned from a template.

`TRACKER_TEST_DATABASE_URL`, `TRACKER_TEST_REDIS_URL` and `TRACKER_TEST_BROKER_URL` run the same suite against other people's servers.
The broker's virtual host and the Redis database are emptied: give the tests ones of their own.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import kombu
import psycopg
import pytest
import redis
from cryptography.fernet import Fernet
from pydantic import SecretStr

from tracker import wiring
from tracker.bell import QUEUES, celery_app
from tracker.embedded.ports import free_port, release
from tracker.embedded.postgres import Postgres
from tracker.embedded.valkey import Valkey
from tracker.settings import Settings
from tracker.store.migrations import migrate

FAST = {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off", "max_connections": "200"}


def _database(url: str, name: str) -> str:
    return urlunsplit(urlsplit(url)._replace(path=f"/{name}"))


def _execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL server for the run."""
    given = os.environ.get("TRACKER_TEST_DATABASE_URL")
    if given:
        yield given
        return
    server = Postgres(
        tmp_path_factory.mktemp("servers") / "postgres",
        port=free_port(15632),
        password=secrets.token_hex(8),
        extra=FAST,
    )
    server.start()
    yield server.url
    server.stop()
    server.remove()
    release(server.port)


@pytest.fixture(scope="session")
def template(postgres_url: str) -> Iterator[str]:
    """The name of a migrated database that tests clone."""
    name = f"template_{secrets.token_hex(4)}"
    _execute(postgres_url, f"CREATE DATABASE {name}")
    migrate(_database(postgres_url, name))
    yield name
    _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def empty_database_url(postgres_url: str) -> Iterator[str]:
    """A database without any table."""
    name = f"empty_{secrets.token_hex(6)}"
    _execute(postgres_url, f"CREATE DATABASE {name}")
    yield _database(postgres_url, name)
    _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database_url(postgres_url: str, template: str) -> Iterator[str]:
    """A fresh, migrated database."""
    name = f"test_{secrets.token_hex(6)}"
    _execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE {template}")
    yield _database(postgres_url, name)
    _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def redis_server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Valkey server for the run."""
    given = os.environ.get("TRACKER_TEST_REDIS_URL")
    if given:
        yield given
        return
    server = Valkey(tmp_path_factory.mktemp("servers") / "valkey", port=free_port(16632), password=secrets.token_hex(8))
    server.start()
    yield server.url
    server.stop()
    server.remove()
    release(server.port)


@pytest.fixture
def redis_url(redis_server_url: str) -> Iterator[str]:
    """The Redis server, emptied."""
    with redis.Redis.from_url(redis_server_url) as client:
        client.flushdb()
        yield redis_server_url
        client.flushdb()


@pytest.fixture
def broker_url(redis_url: str) -> Iterator[str]:
    """Where messages go: the Redis server, or another broker whose queues of ours are empty."""
    given = os.environ.get("TRACKER_TEST_BROKER_URL")
    if not given:
        yield redis_url
        return
    _empty_queues(given)
    yield given
    _empty_queues(given)


def _empty_queues(url: str) -> None:
    # Emptied and not deleted: the client remembers what it declared, and would send into the void.
    with kombu.Connection(url) as connection:
        for name in QUEUES:
            queue = celery_app(url).amqp.queues[name](connection.default_channel)
            queue.declare()
            queue.purge()


@pytest.fixture
def settings(database_url: str, redis_url: str, broker_url: str, tmp_path: Path) -> Settings:
    """Settings of a complete installation on the test servers."""
    return Settings(
        home=tmp_path / "home",
        database_url=SecretStr(database_url),
        redis_url=SecretStr(redis_url),
        broker_url=SecretStr(broker_url),
        secret_keys=SecretStr(Fernet.generate_key().decode()),
        bootstrap_api_key=SecretStr("trk_" + secrets.token_hex(20)),
        given=frozenset({"database_url", "redis_url"}),
    )


@pytest.fixture
def services(settings: Settings) -> Iterator[wiring.Services]:
    """All services, with project `default` made."""
    built = wiring.build(settings)
    built.keys.ensure_bootstrap(settings.required("bootstrap_api_key"))
    yield built
    built.close()
