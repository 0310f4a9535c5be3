"""The connection to PostgreSQL, and the only place that begins and commits.

An engine belongs to the process that made it: workers make theirs after fork.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from functools import lru_cache
from time import monotonic
from typing import Any

import orjson
import psycopg
import sqlalchemy
from sqlalchemy import Connection, TextClause, create_engine, event
from sqlalchemy.exc import DBAPIError, InvalidatePoolError
from sqlalchemy.exc import TimeoutError as NoConnectionLeft
from sqlalchemy.pool import QueuePool

Transaction = Connection
"""An open transaction, as every store function takes it."""


@lru_cache(maxsize=1000)
def text(statement: str) -> TextClause:
    """SQLAlchemy's, made once for each statement: to look for the parameters of a long one takes longer than to send it."""
    return sqlalchemy.text(statement)


CONNECT_TIMEOUT = 5
"""Seconds. A database that does not answer a connect within this is down for us."""
RESTED = 1.0
"""Seconds after which a connection that comes out of the pool is asked first whether it still lives. One that was just used does, and
what breaks it breaks all: the first who notices throws all away."""
STATEMENT_TIMEOUT = "30s"
"""No statement of the product needs more; one that does holds locks and keeps vacuum from cleaning."""


def sqlalchemy_url(url: str) -> str:
    """The address with the driver that we ship, whatever form the user wrote."""
    scheme, _, rest = url.partition("://")
    return f"postgresql+psycopg://{rest}" if scheme in {"postgresql", "postgres"} else url


def _dumps(value: Any) -> str:
    return orjson.dumps(value).decode()


class _Clock:
    ahead = timedelta(0)


class Database:
    """One pool of connections: `size` at most, made when they are needed and kept, since making one costs more than most transactions.

    `settings` are the server's own, for its sessions here.
    """

    def __init__(
        self, url: str, *, size: int = 10, application: str = "tracker", settings: Mapping[str, str] | None = None
    ) -> None:
        self._url, self._application, self._clock = url, application, _Clock()
        self._tuned: list[Database] = []
        self.engine = create_engine(
            sqlalchemy_url(url),
            pool_size=size,
            max_overflow=0,
            pool_timeout=10,
            json_serializer=_dumps,
            json_deserializer=orjson.loads,
            hide_parameters=True,
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT,
                "application_name": application,
                # A claim that the server compiles takes 150 ms instead of 12 (measured), and whether it does hangs on the planner's guess.
                "options": f"-c timezone=UTC -c jit=off -c statement_timeout={STATEMENT_TIMEOUT}"
                " -c idle_in_transaction_session_timeout=30s -c lock_timeout=10s"
                + "".join(f" -c {name}={value}" for name, value in (settings or {}).items()),
            },
        )
        event.listen(self.engine, "checkin", _begins_to_rest)
        event.listen(self.engine, "checkout", self._ask_if_rested)
        self._looking = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    @property
    def ahead(self) -> timedelta:
        """What is added to the server's clock wherever `now` is asked for: tests move hours with it instead of waiting for them."""
        return self._clock.ahead

    @ahead.setter
    def ahead(self, by: timedelta) -> None:
        self._clock.ahead = by

    def tuned(self, settings: Mapping[str, str], *, size: int) -> Database:
        """The same database under other settings of the server, with connections of its own and the same clock."""
        other = Database(self._url, size=size, application=self._application, settings=settings)
        other._clock = self._clock
        self._tuned.append(other)
        return other

    def _ask_if_rested(self, connection: Any, record: Any, _proxy: object) -> None:
        if monotonic() - record.info.get(_RESTS_SINCE, -RESTED) < RESTED:
            return
        try:
            self.engine.dialect.do_ping(connection)
        except psycopg.Error as lost:
            raise InvalidatePoolError from lost

    @contextmanager
    def looking(self) -> Iterator[Transaction]:
        """For statements that stand alone, as nearly all looking does: each is its own transaction, and BEGIN and COMMIT are saved.

        Nothing is lost with them: at the isolation that we use, statements of one transaction see different states too.
        """
        with self._looking.connect() as connection:
            connection.info["ahead"] = self.ahead
            yield connection

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A transaction that commits at the end of the block, or rolls back when it raises."""
        with self.engine.begin() as connection:
            connection.info["ahead"] = self.ahead
            yield connection

    def close(self) -> None:
        """Give all connections back, the tuned ones too."""
        for database in (self, *self._tuned):
            database.engine.dispose()

    @property
    def in_use(self) -> int:
        """Connections checked out now; 0 while a worker waits for the network."""
        pool = self.engine.pool
        return pool.checkedout() if isinstance(pool, QueuePool) else 0


_RESTS_SINCE = "rests_since"


def _begins_to_rest(_connection: object, record: Any) -> None:
    record.info[_RESTS_SINCE] = monotonic()


def now(tx: Transaction) -> datetime:
    """The database's clock: one clock for all machines."""
    at: datetime = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
    return at + ahead(tx)


def ahead(tx: Transaction) -> timedelta:
    """What must be added to the clock of the server where a statement brings its time along."""
    by: timedelta = tx.info.get("ahead", timedelta(0))
    return by


def revision(tx: Transaction) -> str | None:
    """The schema revision of this database; None for an empty one."""
    if tx.execute(text("SELECT to_regclass('alembic_version')")).scalar_one() is None:
        return None
    found: str | None = tx.execute(text("SELECT version_num FROM alembic_version")).scalar_one_or_none()
    return found


def read_only(tx: Transaction) -> bool:
    """Whether this server takes no writes: it is a standby, or was told so."""
    return bool(tx.execute(text("SELECT current_setting('transaction_read_only')::bool")).scalar_one())


PASSING = frozenset({"40001", "40P01", "53300", "55P03", "57014", "57P01", "57P02", "57P03"})
"""What PostgreSQL says when asking again will do: a deadlock, no room, a lock or a statement that took too long, a restart."""


def unreachable(error: BaseException) -> bool:
    """Whether this error means that the database cannot serve us now, rather than that we asked wrongly."""
    if isinstance(error, NoConnectionLeft):
        return True
    lost, said = False, error  # a statement in binary form comes back without SQLAlchemy's wrapping
    if isinstance(error, DBAPIError):
        lost, said = error.connection_invalidated, error.orig or error
    elif not isinstance(error, psycopg.Error):
        return False
    return lost or getattr(said, "sqlstate", None) in PASSING or "connect" in str(said).lower()


def beat(tx: Transaction, name: str, at: datetime, detail: dict[str, Any] | None = None) -> timedelta | None:
    """Note that `name` lives; returns the time since its last sign of life, None at the first."""
    before = tx.execute(
        text("SELECT at FROM heartbeats WHERE name = :name FOR UPDATE"), {"name": name}
    ).scalar_one_or_none()
    tx.execute(
        text(
            "INSERT INTO heartbeats (name, at, detail) VALUES (:name, :at, CAST(:detail AS jsonb))"
            " ON CONFLICT (name) DO UPDATE SET at = greatest(heartbeats.at, excluded.at), detail = excluded.detail"
        ),
        {"name": name, "at": at, "detail": _dumps(detail)},
    )
    return None if before is None else at - before


def last_beat(tx: Transaction, name: str) -> datetime | None:
    """When `name` last gave a sign of life."""
    at: datetime | None = tx.execute(
        text("SELECT at FROM heartbeats WHERE name = :name"), {"name": name}
    ).scalar_one_or_none()
    return at
