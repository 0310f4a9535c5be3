"""Runs the migrations: one at a time over all machines (advisory lock), never waiting long for a lock that users need."""

from __future__ import annotations

import os

from alembic import context
from sqlalchemy import create_engine, text

from tracker.store.db import sqlalchemy_url
from tracker.store.tables import metadata

# A lock that is not had in this time would queue every reader behind us; the migration fails instead and can be run again.
LOCK_TIMEOUT = "4s"
STATEMENT_TIMEOUT = "60s"
# Any fixed number: two deployments that migrate at once must meet on it.
ADVISORY_LOCK = 7_236_001


def run() -> None:
    connection = context.config.attributes.get("connection")
    if connection is not None:
        migrate(connection)
        return
    url = context.config.get_main_option("sqlalchemy.url") or os.environ["TRACKER_DATABASE_URL"]
    with create_engine(sqlalchemy_url(url)).connect() as fresh:
        migrate(fresh)
        fresh.commit()


def migrate(connection) -> None:  # noqa: ANN001
    context.configure(connection=connection, target_metadata=metadata, compare_server_default=False, compare_type=True)
    with context.begin_transaction():
        connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
        connection.execute(text(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'"))
        connection.execute(text(f"SELECT pg_advisory_xact_lock({ADVISORY_LOCK})"))
        context.run_migrations()


run()
