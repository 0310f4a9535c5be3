"""What is told: events, who receives them, and every delivery with its attempts."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from tracker.store.tables.base import NOW, Time, metadata, words

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
    # Until when the receiver itself asked not to be called.
    Column("asked_until", Time),
    # The first failed attempt since the last one that succeeded.
    Column("failing_since", Time),
    # A host that was given up: upkeep ends what was made until then, and nothing but what is asked for by hand is sent meanwhile.
    Column("given_up_at", Time),
    # A recovery under way: the last event that it looked at, the first one that it leaves alone, and when its last delivery is due.
    Column("replay_after", Uuid),
    Column("replay_until", Uuid),
    Column("replay_due", Time),
    # What could be seen when it began: what was being written then may appear behind its place.
    Column("replay_snapshot", Text),
    CheckConstraint(
        "(replay_after IS NULL) = (replay_until IS NULL) AND (replay_after IS NULL) = (replay_due IS NULL)",
        name="replay_whole",
    ),
    # One lane for each endpoint, and one for each host that ad-hoc webhook URLs of a project name.
    UniqueConstraint("endpoint_id", name="endpoint_unique"),
    Index("receivers_host", "project_id", "host", unique=True, postgresql_where=text("endpoint_id IS NULL")),
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
    Index("signing_secrets_owner", "project_id", "endpoint_id"),
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
    # When it came to its last state; empty while pending, and in rows that ended before this was noted.
    Column("ended_at", Time),
    # An event reaches each receiver as one delivery, however often it is tried.
    UniqueConstraint("event_id", "receiver_id", name="receiver_unique"),
    CheckConstraint(words("state", "pending", "delivered", "failed", "cancelled"), name="state_known"),
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
        words(
            "error_class", "dns", "address", "connect", "tls", "timeout", "protocol", "redirect", "too_large", "status"
        ),
        name="error_class_known",
    ),
)
