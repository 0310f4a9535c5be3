"""The schema: models and migrations agree, every named rule refuses what its sentence says, and migrating is safe."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from alembic import command
from sqlalchemy import CheckConstraint, UniqueConstraint, create_engine, text
from sqlalchemy.exc import IntegrityError

from tracker.errors import SchemaOutdatedError
from tracker.store import db
from tracker.store.db import Database
from tracker.store.migrations import configuration, head, migrate, refuse_other_schema
from tracker.store.tables import metadata

from .conftest import Rows


def _tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        found = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {row[0] for row in found}


def test_models_and_migrations_say_the_same(database_url: str) -> None:
    engine = create_engine(db.sqlalchemy_url(database_url))
    with engine.begin() as connection:
        config = configuration()
        config.attributes["connection"] = connection
        command.check(config)
    engine.dispose()


def test_check_constraints_are_the_models(rows: Rows) -> None:
    """alembic compares no CHECK: their names and number are compared here."""
    stored = {
        row[0]
        for row in rows.all(
            "SELECT conname FROM pg_constraint WHERE contype = 'c' AND connamespace = 'public'::regnamespace"
        )
    }
    named = {
        f"{table.name}_{str(rule.name).removeprefix(f'{table.name}_')}"
        for table in metadata.tables.values()
        for rule in table.constraints
        if isinstance(rule, CheckConstraint)
    }
    assert named == stored


def test_down_and_up_again(empty_database_url: str) -> None:
    migrate(empty_database_url)
    full = _tables(empty_database_url)
    assert full == {*metadata.tables, "alembic_version"}
    migrate(empty_database_url, "base")
    assert _tables(empty_database_url) == {"alembic_version"}
    migrate(empty_database_url)
    assert _tables(empty_database_url) == full


def test_two_who_migrate_at_once_both_succeed(empty_database_url: str) -> None:
    with ThreadPoolExecutor(2) as threads:
        for run in [threads.submit(_migrated, empty_database_url) for _ in range(2)]:
            assert run.result() == head()


def _migrated(url: str) -> str | None:
    # alembic's context is one per process: the second migrator is another process, as it is in a deployment.
    code = "import sys; from tracker.store.migrations import migrate; migrate(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, url], check=True, timeout=60)
    database = Database(url)
    with database.transaction() as tx:
        found = db.revision(tx)
    database.close()
    return found


def test_a_migration_does_not_wait_long_for_a_lock(database_url: str) -> None:
    with psycopg.connect(database_url) as busy:
        busy.execute("LOCK TABLE generations IN ACCESS SHARE MODE")
        with pytest.raises(Exception, match="lock timeout"):
            migrate(database_url, "base")
    assert "generations" in _tables(database_url), "nothing is half done"


def test_an_old_schema_is_refused_with_the_mend(empty_database_url: str) -> None:
    database = Database(empty_database_url)
    with database.transaction() as tx, pytest.raises(SchemaOutdatedError, match="tracker migrate"):
        refuse_other_schema(tx)
    migrate(empty_database_url)
    with database.transaction() as tx:
        refuse_other_schema(tx)
        tx.execute(text("UPDATE alembic_version SET version_num = 'older'"))
        with pytest.raises(SchemaOutdatedError, match="older"):
            refuse_other_schema(tx)
    database.close()


NEW = "INSERT INTO generations (id, project_id, provider, credential_id, task_id, registered_at, timeout, timeout_at, give_up_at, changed_at) SELECT gen_random_uuid(), project_id, provider, credential_id, {task}, now(), '1 h', now(), {give_up}, now() FROM generations LIMIT 1"
DELIVERY = (
    "INSERT INTO deliveries (id, project_id, event_id, receiver_id, type, url, state, due_at, created_at)"
    " SELECT gen_random_uuid(), e.project_id, e.id, r.id, 'ping', 'http://x', {state}, {due}, now() FROM events e, receivers r"
)
ARTIFACT = (
    "INSERT INTO artifacts (generation_id, kind, index, project_id, state, source_url, due_at, fetch_by, created_at)"
    " SELECT id, 'video', 0, project_id, {state}, 'http://x', {due}, now(), now() FROM generations"
)
REFUSED = {
    "projects_name_unique": "INSERT INTO projects (id, name) VALUES (gen_random_uuid(), 'test')",
    "api_keys_hash_unique": "INSERT INTO api_keys (id, project_id, prefix, hash, scopes) SELECT gen_random_uuid(), id, 'p', '\\x01', '{read}' FROM projects, generate_series(1, 2)",
    "api_keys_scopes_known": "INSERT INTO api_keys (id, project_id, prefix, hash, scopes) SELECT gen_random_uuid(), id, 'p', '\\x02', '{root}' FROM projects",
    "credentials_name_unique": "INSERT INTO credentials (project_id, name, providers, callback_token) SELECT id, 'a', '{}', 'other' FROM projects",
    "credentials_callback_token_unique": "INSERT INTO credentials (project_id, name, providers, callback_token) SELECT id, 'b', '{}', 'a' FROM projects",
    "credentials_paused_with_reason": "UPDATE credentials SET state = 'paused'",
    "credentials_state_known": "UPDATE credentials SET state = 'asleep'",
    "credentials_budget_positive": "UPDATE credentials SET concurrency = 0",
    "clocks_subject_unique": "INSERT INTO clocks (provider, subject, phase, events, exposure, gaps, price) SELECT provider, subject, phase, '{}', '{}', '{}', 1 FROM clocks",
    "generations_task_unique": NEW.format(task="task_id", give_up="now()"),
    "generations_state_known": "UPDATE generations SET state = 'lost'",
    "generations_finished_when_final": "UPDATE generations SET state = 'cancelled'",
    "generations_failed_with_error": "UPDATE generations SET state = 'failed', finished_at = now()",
    "generations_completed_with_outputs": "UPDATE generations SET state = 'completed', finished_at = now()",
    "generations_give_up_after_timeout": NEW.format(task="'x'", give_up="now() - interval '1 h'"),
    "generations_webhook_url_has_receiver": "UPDATE generations SET webhook_url = 'http://x'",
    "polls_lane_known": "UPDATE polls SET lane = 2",
    "events_sequence_unique": "INSERT INTO events (id, project_id, generation_id, sequence, type, at, body) SELECT gen_random_uuid(), project_id, id, 1, 'ping', now(), '' FROM generations, generate_series(1, 2)",
    "events_sequence_with_generation": "INSERT INTO events (id, project_id, generation_id, type, at, body) SELECT gen_random_uuid(), project_id, id, 'ping', now(), '' FROM generations",
    "endpoints_reason_when_disabled": "INSERT INTO endpoints (id, project_id, url, disabled_reason) SELECT gen_random_uuid(), id, 'http://x', 'why' FROM projects",
    "signing_secrets_current": "INSERT INTO signing_secrets (id, project_id, secret) SELECT gen_random_uuid(), id, '' FROM projects, generate_series(1, 2)",
    "receivers_host": "INSERT INTO receivers (project_id, host) SELECT id, 'h:1' FROM projects",
    "deliveries_state_known": DELIVERY.format(state="'lost'", due="NULL"),
    "deliveries_due_while_pending": DELIVERY.format(state="'pending'", due="NULL"),
    "deliveries_receiver_unique": DELIVERY.format(state="'delivered'", due="NULL") + ", generate_series(1, 2)",
    "artifacts_state_known": ARTIFACT.format(state="'lost'", due="NULL"),
    "artifacts_stored_whole": ARTIFACT.format(state="'stored'", due="NULL"),
    "artifacts_due_while_pending": ARTIFACT.format(state="'failed'", due="now()"),
    "switches_name_known": "INSERT INTO switches (name) VALUES ('everything')",
}  # fmt: skip


def test_every_rule_refuses_what_its_sentence_says(rows: Rows) -> None:
    credential, clock = rows.credential("a"), rows.clock()
    rows.polls(1, credential, clock)
    rows.run("INSERT INTO receivers (project_id, host) SELECT id, 'h:1' FROM projects")
    rows.run(
        "INSERT INTO events (id, project_id, type, at, body) SELECT gen_random_uuid(), id, 'ping', now(), '' FROM projects"
    )
    for name, statement in REFUSED.items():
        with pytest.raises(IntegrityError) as caught:
            rows.run(statement)
        original: Any = caught.value.orig
        assert original.diag.constraint_name == name, str(original)


def test_every_unique_rule_is_tried_above() -> None:
    rules = {
        str(c.name) for table in metadata.tables.values() for c in table.constraints if isinstance(c, UniqueConstraint)
    }
    tried = " ".join(REFUSED)
    missing = [name for name in rules if not re.search(name, tried)]
    assert missing in ([], ["endpoint_unique"], ["receivers_endpoint_unique"]), missing
