"""Who uses the tracker and whom it asks: projects, API keys, provider accounts, remembered requests."""

from __future__ import annotations

from sqlalchemy import (
    ARRAY,
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    Interval,
    LargeBinary,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from tracker.store.tables.base import NOW, Time, metadata, words

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
    Column("limited", SmallInteger, nullable=False, server_default="0"),
    Column("requests_per_second", REAL, nullable=False, server_default="20"),
    Column("concurrency", Integer, nullable=False, server_default="50"),
    Column("tokens", Double, nullable=False, server_default="0"),
    Column("refilled_at", Time, nullable=False, server_default=NOW),
    # How many ids one request can carry there; 1 where the relay has no batch path, which is tried again later.
    Column("batch_size", SmallInteger, nullable=False, server_default="1"),
    Column("no_batch_until", Time),
    Column("created_at", Time, nullable=False, server_default=NOW),
    Column("updated_at", Time, nullable=False, server_default=NOW),
    # The schedule's two knobs where a generation has none of its own; NULL is the installation's.
    Column("poll_price", REAL),
    Column("poll_longest", REAL),
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
    CheckConstraint(words("state", "active", "paused"), name="state_known"),
    CheckConstraint("requests_per_second > 0 AND concurrency > 0 AND batch_size > 0", name="budget_positive"),
    Index("credentials_api_key_hash", "api_key_hash"),
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
