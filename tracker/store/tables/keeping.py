"""What is kept, and what operators see: durable copies, signs of life, switches."""

from __future__ import annotations

from sqlalchemy import (
    REAL,
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

from tracker.store.tables.base import NOW, Time, metadata, words

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
    CheckConstraint(words("state", "pending", "stored", "failed"), name="state_known"),
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
    CheckConstraint(words("name", "polls", "webhooks", "downloads"), name="name_known"),
)
