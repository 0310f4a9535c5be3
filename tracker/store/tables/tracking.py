"""What is tracked: generations, the schedule of their polls, and what was learned of their durations."""

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
    Interval,
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

from tracker.store.tables.base import FINAL_STATES, NOW, Time, metadata, words

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
        words("state", "registered", "queued", "processing", "completed", "failed", "cancelled", "timed_out"),
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
    # The newest claim whose answer changed this row: an answer to an older one, come late, is no news any more.
    Column("answered", Integer),
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
    # Whether a worker has taken the batch from the broker.
    Column("taken", Boolean, nullable=False, server_default="false"),
    # A batch whose worker died counts no longer once this has passed.
    Column("until", Time, nullable=False),
    PrimaryKeyConstraint("batch_id", "credential_id"),
    Index("flights_credential", "credential_id"),
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
