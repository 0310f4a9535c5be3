"""The tables. Every constraint has a name, and a sentence above it says which rule it enforces.

The migrations in `alembic/` make these; `alembic check` (a test) keeps the two equal.
"""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)  # fmt: skip
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "uq": "%(table_name)s_%(constraint_name)s",
        "ck": "%(table_name)s_%(constraint_name)s",
        "ix": "%(table_name)s_%(column_0_name)s",
    }
)

Time = DateTime(timezone=True)
NOW = text("now()")
FINAL_STATES = "('completed', 'failed', 'cancelled')"


def _words(column: str, *words: str) -> str:
    return f"{column} IN ({', '.join(repr(word) for word in words)})"


projects = Table(
    "projects",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("created_at", Time, nullable=False, server_default=NOW),
    # Copies: kinds kept where a registration says nothing ({}: all, null: none), and the bounds of what is kept.
    Column("download", ARRAY(Text)),
    Column("keep_for", Interval),
    Column("keep_bytes", BigInteger),
    Column("quota_bytes", BigInteger),
    # A project is addressed by its name.
    UniqueConstraint("name", name="name_unique"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("project_id", Uuid, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False, server_default=""),
    Column("prefix", Text, nullable=False),
    Column("hash", LargeBinary, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("created_at", Time, nullable=False, server_default=NOW),
    Column("expires_at", Time),
    Column("revoked_at", Time),
    Column("last_used_at", Time),
    # Two keys never share a hash: a look-up finds one key or none.
    UniqueConstraint("hash", name="hash_unique"),
    # A key without a scope could do nothing, one with an unknown scope something unforeseen.
    CheckConstraint("scopes <@ ARRAY['read', 'write', 'admin'] AND cardinality(scopes) > 0", name="scopes_known"),
    Index("api_keys_project", "project_id"),
)

credentials = Table(
    "credentials",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("project_id", Uuid, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("name", Text, nullable=False),
    Column("environment_provider", Text),
    Column("providers", ARRAY(Text), nullable=False),
    Column("base_url", Text),
    Column("api_key", LargeBinary),
    Column("api_key_hash", LargeBinary),
    Column("callback_token", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="active"),
    Column("paused_reason", Text),
    Column("paused_at", Time),
    Column("refused", ARRAY(Uuid), nullable=False, server_default="{}"),
    Column("probes", Integer, nullable=False, server_default="0"),
    Column("probe_at", Time),
    Column("blocked_until", Time),
    Column("failing", SmallInteger, nullable=False, server_default="0"),
    Column("requests_per_second", REAL, nullable=False, server_default="20"),
    Column("concurrency", Integer, nullable=False, server_default="50"),
    Column("tokens", Double, nullable=False, server_default="0"),
    Column("refilled_at", Time, nullable=False, server_default=NOW),
    # How many ids one request can carry there; 1 where the relay has no batch path, which is tried again later.
    Column("batch_size", SmallInteger, nullable=False, server_default="1"),
    Column("no_batch_until", Time),
    Column("created_at", Time, nullable=False, server_default=NOW),
    Column("updated_at", Time, nullable=False, server_default=NOW),
    # One name is one account; the environment may give one `default` per provider besides.
    UniqueConstraint(
        "project_id", "name", "environment_provider", name="name_unique", postgresql_nulls_not_distinct=True
    ),
    # An inbound callback finds its credential by this token alone.
    UniqueConstraint("callback_token", name="callback_token_unique"),
    # A paused credential says why and knows when it is probed; an active one has neither.
    CheckConstraint(
        "(state = 'paused') = (paused_reason IS NOT NULL) AND (state = 'paused') = (probe_at IS NOT NULL)"
        " AND (state = 'paused') = (paused_at IS NOT NULL)",
        name="paused_with_reason",
    ),
    CheckConstraint(_words("state", "active", "paused"), name="state_known"),
    CheckConstraint("requests_per_second > 0 AND concurrency > 0 AND batch_size > 0", name="budget_positive"),
    Index("credentials_api_key_hash", "api_key_hash"),
)

clocks = Table(
    "clocks",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("provider", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("phase", Text, nullable=False),
    Column("events", ARRAY(Double), nullable=False),
    Column("exposure", ARRAY(Double), nullable=False),
    # Gaps in seconds at the 65 age edges, for the price and bound that were set when they were folded: the claim interpolates them.
    Column("gaps", ARRAY(REAL), nullable=False),
    Column("price", REAL, nullable=False),
    Column("tasks", Double, nullable=False, server_default="0"),
    Column("folded_at", Time, nullable=False, server_default=NOW),
    # One clock for each provider, model or kind, and phase (`waiting` until it is seen processing, then `processing`).
    UniqueConstraint("provider", "subject", "phase", name="subject_unique"),
)

clock_deltas = Table(
    "clock_deltas",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("clock_id", Integer, ForeignKey("clocks.id", ondelete="CASCADE"), nullable=False),
    Column("buckets", ARRAY(SmallInteger), nullable=False),
    Column("passages", ARRAY(Double), nullable=False),
    Column("events", ARRAY(Double), nullable=False),
    Column("exposure", ARRAY(Double), nullable=False),
)

receivers = Table(
    "receivers",
    metadata,
    Column("id", Integer, Identity(always=True), primary_key=True),
    Column("project_id", Uuid, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("endpoint_id", Uuid, ForeignKey("endpoints.id", ondelete="CASCADE")),
    Column("host", Text, nullable=False),
    Column("in_flight_cap", Integer, nullable=False, server_default="4"),
    # The purse of the endpoint's rate limit; more than any burst, so that it begins full.
    Column("tokens", Double, nullable=False, server_default="1000000"),
    Column("refilled_at", Time, nullable=False, server_default=NOW),
    # Attempts in a row that brought no answer, and until when the receiver is left in peace after them.
    Column("failing", Integer, nullable=False, server_default="0"),
    Column("quiet_until", Time),
    # The first failed attempt since the last one that succeeded.
    Column("failing_since", Time),
    # A recovery under way: the last event that it looked at, the first one that it leaves alone, and when its last delivery is due.
    Column("replay_after", Uuid),
    Column("replay_until", Uuid),
    Column("replay_due", Time),
    CheckConstraint(
        "(replay_after IS NULL) = (replay_until IS NULL) AND (replay_after IS NULL) = (replay_due IS NULL)",
        name="replay_whole",
    ),
    # One lane for each endpoint, and one for each host that ad-hoc webhook URLs of a project name.
    UniqueConstraint("endpoint_id", name="endpoint_unique"),
    Index("receivers_host", "project_id", "host", unique=True, postgresql_where=text("endpoint_id IS NULL")),
)

generations = Table(
    "generations",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("project_id", Uuid, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("credential_id", Integer, ForeignKey("credentials.id"), nullable=False),
    Column("task_id", Text, nullable=False),
    Column("kind", Text),
    Column("model", Text),
    Column("state", Text, nullable=False, server_default="registered"),
    Column("provider_status", Text),
    Column("outputs", JSONB, nullable=False, server_default="[]"),
    Column("error", JSONB),
    Column("metadata", JSONB, nullable=False, server_default="{}"),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("webhook_url", Text),
    Column("webhook_events", ARRAY(Text)),
    Column("webhook_receiver_id", Integer, ForeignKey("receivers.id")),
    Column("download", ARRAY(Text)),
    Column("poll_price", REAL),
    Column("poll_longest", REAL),
    Column("registered_at", Time, nullable=False),
    Column("submitted_at", Time),
    Column("finished_at", Time),
    Column("timeout", Interval, nullable=False),
    Column("timeout_at", Time, nullable=False),
    Column("give_up_at", Time, nullable=False),
    # What the schedule's row held when it was removed: kept so that an ended generation still tells.
    Column("polls", Integer, nullable=False, server_default="0"),
    Column("last_polled_at", Time),
    Column("progress", REAL),
    Column("last_problem", JSONB),
    Column("version", Integer, nullable=False, server_default="1"),
    Column("sequence", Integer, nullable=False, server_default="1"),
    Column("changed_at", Time, nullable=False),
    # The same task registered twice is one generation.
    UniqueConstraint("project_id", "provider", "credential_id", "task_id", name="task_unique"),
    CheckConstraint(
        _words("state", "registered", "queued", "processing", "completed", "failed", "cancelled", "timed_out"),
        name="state_known",
    ),
    # The end of a generation has a time, and only the end has.
    CheckConstraint(f"(finished_at IS NOT NULL) = (state IN {FINAL_STATES})", name="finished_when_final"),
    # A failed one says why; a completed one has no error and at least one output.
    CheckConstraint("state <> 'failed' OR error IS NOT NULL", name="failed_with_error"),
    CheckConstraint("state <> 'completed' OR (error IS NULL AND outputs <> '[]')", name="completed_with_outputs"),
    CheckConstraint("give_up_at >= timeout_at", name="give_up_after_timeout"),
    # A URL to call always has a lane to be called in.
    CheckConstraint("webhook_url IS NULL OR webhook_receiver_id IS NOT NULL", name="webhook_url_has_receiver"),
    Index("generations_newest", "project_id", "id"),
    Index("generations_task", "provider", "task_id"),
    Index("generations_tags", "tags", postgresql_using="gin"),
    Index("generations_state", "project_id", "state", "id"),
    Index("generations_credential", "credential_id", postgresql_where=text(f"state NOT IN {FINAL_STATES}")),
    postgresql_with={"fillfactor": "85"},
)

answers = Table(
    "answers",
    metadata,
    Column("generation_id", Uuid, ForeignKey("generations.id", ondelete="CASCADE"), primary_key=True),
    Column("body", LargeBinary, nullable=False),
    Column("at", Time, nullable=False),
)

polls = Table(
    "polls",
    metadata,
    Column("generation_id", Uuid, ForeignKey("generations.id", ondelete="CASCADE"), primary_key=True),
    Column("credential_id", Integer, nullable=False),
    Column("clock_id", Integer, nullable=False),
    Column("due_at", Time, nullable=False),
    # When the clock of this generation started: submitted, registered, or seen processing.
    Column("clock_from", Time, nullable=False),
    Column("timeout_at", Time, nullable=False),
    Column("asked_at", Time),
    # The last look that got a well-formed answer; what the clock learns runs from here.
    Column("watched_at", Time),
    Column("fence", Integer, nullable=False, server_default="0"),
    Column("lane", SmallInteger, nullable=False, server_default="0"),
    Column("failures", SmallInteger, nullable=False, server_default="0"),
    Column("problem_run", SmallInteger, nullable=False, server_default="0"),
    Column("answered_late", Boolean, nullable=False, server_default="false"),
    Column("price", REAL),
    Column("longest", REAL),
    Column("progress", REAL),
    Column("problem_code", Text),
    Column("problem_message", Text),
    Column("problem_at", Time),
    # Lane 1 holds the late checks: they are asked only with what lane 0 leaves.
    CheckConstraint("lane IN (0, 1)", name="lane_known"),
    Index("polls_due", "credential_id", "lane", "due_at"),
    postgresql_with={
        "fillfactor": "80",
        "autovacuum_vacuum_scale_factor": "0.02",
        "autovacuum_vacuum_threshold": "1000",
        "autovacuum_vacuum_cost_delay": "0",
    },
)

flights = Table(
    "flights",
    metadata,
    Column("batch_id", Uuid, nullable=False),
    Column("credential_id", Integer, ForeignKey("credentials.id", ondelete="CASCADE"), nullable=False),
    Column("asks", Integer, nullable=False),
    # A batch whose worker died counts no longer once this has passed.
    Column("until", Time, nullable=False),
    PrimaryKeyConstraint("batch_id", "credential_id"),
    Index("flights_credential", "credential_id"),
)

events = Table(
    "events",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("project_id", Uuid, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("generation_id", Uuid, ForeignKey("generations.id", ondelete="CASCADE")),
    Column("sequence", Integer),
    Column("type", Text, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text),
    Column("provider_status", Text),
    Column("at", Time, nullable=False),
    Column("detail", JSONB),
    Column("body", LargeBinary, nullable=False),
    # Serial ids commit out of order: readers follow (xid, id) and stop below the oldest running transaction.
    Column("xid", BigInteger, nullable=False, server_default=text("(pg_current_xact_id()::text)::bigint")),
    # The events of one generation are counted without gaps or doubles.
    UniqueConstraint("generation_id", "sequence", name="sequence_unique"),
    # An event of a generation has its place in the count.
    CheckConstraint("(generation_id IS NULL) = (sequence IS NULL)", name="sequence_with_generation"),
    Index("events_stream", "project_id", "xid", "id"),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("project_id", Uuid, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("url", Text, nullable=False),
    Column("description", Text, nullable=False, server_default=""),
    Column("events", ARRAY(Text), nullable=False, server_default="{}"),
    Column("tags", ARRAY(Text), nullable=False, server_default="{}"),
    Column("providers", ARRAY(Text), nullable=False, server_default="{}"),
    Column("headers", LargeBinary),
    Column("header_names", ARRAY(Text), nullable=False, server_default="{}"),
    Column("rate_limit", REAL),
    Column("schedule", ARRAY(REAL)),
    Column("ca", Text),
    Column("enabled", Boolean, nullable=False, server_default="true"),
    Column("disabled_reason", Text),
    Column("created_at", Time, nullable=False, server_default=NOW),
    Column("updated_at", Time, nullable=False, server_default=NOW),
    # What is enabled has no reason to be disabled.
    CheckConstraint("NOT enabled OR disabled_reason IS NULL", name="reason_when_disabled"),
    Index("endpoints_project", "project_id"),
)

signing_secrets = Table(
    "signing_secrets",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("project_id", Uuid, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("endpoint_id", Uuid, ForeignKey("endpoints.id", ondelete="CASCADE")),
    Column("secret", LargeBinary, nullable=False),
    Column("created_at", Time, nullable=False, server_default=NOW),
    Column("expires_at", Time),
    # Every endpoint, and every project for its webhook URLs, has one secret that does not expire.
    Index(
        "signing_secrets_current",
        "project_id",
        "endpoint_id",
        unique=True,
        postgresql_where=text("expires_at IS NULL"),
        postgresql_nulls_not_distinct=True,
    ),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("project_id", Uuid, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("event_id", Uuid, ForeignKey("events.id", ondelete="CASCADE"), nullable=False),
    Column("generation_id", Uuid, ForeignKey("generations.id", ondelete="CASCADE")),
    Column("receiver_id", Integer, ForeignKey("receivers.id", ondelete="CASCADE"), nullable=False),
    Column("endpoint_id", Uuid, ForeignKey("endpoints.id", ondelete="CASCADE")),
    Column("type", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("state", Text, nullable=False, server_default="pending"),
    # 0 asked for by hand, 1 first attempts, 2 retries, 3 replayed: a lane is served before those behind it.
    Column("lane", SmallInteger, nullable=False, server_default="1"),
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    # Attempts of the present round: a redelivery or a recovery of what had ended begins the schedule anew.
    Column("tries", SmallInteger, nullable=False, server_default="0"),
    Column("due_at", Time),
    Column("lease_until", Time),
    Column("fence", Integer, nullable=False, server_default="0"),
    Column("created_at", Time, nullable=False),
    # An event reaches each receiver as one delivery, however often it is tried.
    UniqueConstraint("event_id", "receiver_id", name="receiver_unique"),
    CheckConstraint(_words("state", "pending", "delivered", "failed", "cancelled"), name="state_known"),
    # Only what is pending is due.
    CheckConstraint("(state = 'pending') = (due_at IS NOT NULL)", name="due_while_pending"),
    CheckConstraint("lane BETWEEN 0 AND 3", name="lane_known"),
    Index("deliveries_due", "receiver_id", "lane", "due_at", postgresql_where=text("state = 'pending'")),
    Index("deliveries_in_flight", "receiver_id", postgresql_where=text("lease_until IS NOT NULL")),
    Index("deliveries_generation", "generation_id"),
    Index("deliveries_newest", "project_id", "id"),
    # Every delivery is written three times, and its place in the queue dies twice.
    postgresql_with={
        "fillfactor": "80",
        "autovacuum_vacuum_scale_factor": "0.02",
        "autovacuum_vacuum_threshold": "1000",
        "autovacuum_vacuum_cost_delay": "0",
    },
)

attempts = Table(
    "attempts",
    metadata,
    Column("delivery_id", Uuid, ForeignKey("deliveries.id", ondelete="CASCADE"), nullable=False),
    Column("number", SmallInteger, nullable=False),
    Column("at", Time, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("status_code", SmallInteger),
    Column("error_class", Text),
    Column("response", Text, nullable=False, server_default=""),
    Column("worker", Text, nullable=False, server_default=""),
    PrimaryKeyConstraint("delivery_id", "number"),
    CheckConstraint(
        _words(
            "error_class", "dns", "address", "connect", "tls", "timeout", "protocol", "redirect", "too_large", "status"
        ),
        name="error_class_known",
    ),
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("generation_id", Uuid, ForeignKey("generations.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("index", SmallInteger, nullable=False),
    Column("project_id", Uuid, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("state", Text, nullable=False, server_default="pending"),
    Column("source_url", Text, nullable=False),
    Column("object_key", Text),
    Column("size", BigInteger),
    Column("bytes_done", BigInteger, nullable=False, server_default="0"),
    Column("bytes_per_second", REAL),
    Column("sha256", Text),
    Column("media_type", Text),
    Column("etag", Text),
    # Which partial file belongs to `etag` and `size` while it is pending; null when a try must begin at the first byte.
    Column("partial", Text),
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    Column("refreshed", SmallInteger, nullable=False, server_default="0"),
    # When the link is thought to end: the order in which copies are fetched.
    Column("fetch_by", Time, nullable=False),
    # Since when a worker asks the provider for fresh links of this generation.
    Column("asked_at", Time),
    Column("error", JSONB),
    Column("due_at", Time),
    Column("lease_until", Time),
    Column("fence", Integer, nullable=False, server_default="0"),
    Column("created_at", Time, nullable=False),
    Column("stored_at", Time),
    PrimaryKeyConstraint("generation_id", "kind", "index"),
    CheckConstraint(_words("state", "pending", "stored", "failed"), name="state_known"),
    # A stored copy can be found, measured and verified.
    CheckConstraint(
        "state <> 'stored' OR (object_key IS NOT NULL AND size IS NOT NULL AND sha256 IS NOT NULL AND stored_at IS NOT NULL)",
        name="stored_whole",
    ),
    CheckConstraint("(state = 'pending') = (due_at IS NOT NULL)", name="due_while_pending"),
    Index("artifacts_due", "due_at", postgresql_where=text("state = 'pending'")),
    Index("artifacts_order", "fetch_by", postgresql_where=text("state = 'pending'")),
    Index("artifacts_kept", "project_id", "stored_at", postgresql_where=text("state = 'stored'")),
    Index("artifacts_object", "object_key", postgresql_where=text("object_key IS NOT NULL")),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("project_id", Uuid, ForeignKey("projects.id", ondelete="CASCADE"), nullable=False),
    Column("key", Text, nullable=False),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("status", SmallInteger),
    Column("body", LargeBinary),
    Column("created_at", Time, nullable=False, server_default=NOW),
    PrimaryKeyConstraint("project_id", "key"),
    Index("idempotency_keys_age", "created_at"),
)

heartbeats = Table(
    "heartbeats",
    metadata,
    Column("name", Text, primary_key=True),
    Column("at", Time, nullable=False),
    Column("detail", JSONB),
)

switches = Table(
    "switches",
    metadata,
    Column("name", Text, primary_key=True),
    Column("reason", Text, nullable=False, server_default=""),
    Column("at", Time, nullable=False, server_default=NOW),
    # Bytes that must be free before it goes on by itself; null where only an operator lets it go on.
    Column("needed", BigInteger),
    # An operator stops one kind of work for the whole installation; a row here means stopped.
    CheckConstraint(_words("name", "polls", "webhooks", "downloads"), name="name_known"),
)
