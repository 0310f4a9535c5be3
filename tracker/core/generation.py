"""What we track, as plain values: a generation, its outputs, its error, its stored copies. No rules and no storage."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

KINDS = ("video", "video_raw", "thumbnail", "last_frame", "audio", "image")
"""Kinds of output, in the order in which they are shown."""


class State(StrEnum):
    """Where a generation stands, in our words (the provider's own word is `provider_status`)."""

    REGISTERED = "registered"
    QUEUED = "queued"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"


class ErrorCode(StrEnum):
    """Why a generation ended without a result."""

    MODERATED = "moderated"
    BAD_INPUT = "bad_input"
    PROVIDER_ERROR = "provider_error"
    EXPIRED = "expired"
    CANCELLED_BY_PROVIDER = "cancelled_by_provider"
    NOT_FOUND = "not_found"
    CREDENTIAL_DELETED = "credential_deleted"


@dataclass(frozen=True, slots=True)
class Output:
    """One file that the provider made. Width and height in pixels, duration in seconds."""

    kind: str
    index: int
    url: str
    width: int | None = None
    height: int | None = None
    duration: float | None = None
    media_type: str | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """Why it ended badly; `message` is the provider's own reason."""

    code: ErrorCode
    message: str
    provider_code: str | None = None


@dataclass(frozen=True, slots=True)
class LastProblem:
    """The latest observation that failed. `in_a_row` counts answers with this code, 0 once a good answer came."""

    code: str
    message: str
    at: datetime
    in_a_row: int


@dataclass(frozen=True, slots=True)
class Artifact:
    """A durable copy of one output: wished, under way, stored or given up."""

    generation_id: UUID
    kind: str
    index: int
    state: str
    size: int | None = None
    bytes_done: int = 0
    bytes_per_second: float | None = None
    sha256: str | None = None
    media_type: str | None = None
    stored_at: datetime | None = None
    error: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """Everything that people read about one generation. Times are aware and UTC."""

    id: UUID
    project_id: UUID
    provider: str
    credential_id: int
    credential: str
    task_id: str
    state: State
    registered_at: datetime
    timeout: timedelta
    timeout_at: datetime
    give_up_at: datetime
    kind: str | None = None
    model: str | None = None
    provider_status: str | None = None
    progress: float | None = None
    outputs: tuple[Output, ...] = ()
    error: Failure | None = None
    last_problem: LastProblem | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    webhook_url: str | None = None
    webhook_events: tuple[str, ...] | None = None
    webhook_receiver_id: int | None = None
    download: tuple[str, ...] | None = None
    """Kinds to keep a copy of; () means all of them, None means none."""
    submitted_at: datetime | None = None
    finished_at: datetime | None = None
    last_polled_at: datetime | None = None
    next_poll_at: datetime | None = None
    expected_at: datetime | None = None
    polls: int = 0
    version: int = 1
    sequence: int = 1
    poll_price: float | None = None
    poll_longest: float | None = None
    clock_id: int | None = None
    clock_from: datetime | None = None
    artifacts: tuple[Artifact, ...] = ()

    def wants(self, output: Output) -> bool:
        """Whether a copy of this output was asked for."""
        return self.download is not None and (not self.download or output.kind in self.download)
