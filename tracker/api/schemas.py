"""What answers look like, for the OpenAPI description. The tests hold every answer against these; nothing is converted by them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tracker.core.generation import KINDS, ErrorCode, State

Kind = Literal[KINDS]  # type: ignore[valid-type]
Time = str
"""RFC 3339 in UTC."""


class Shown(BaseModel):
    """What all answers share: nothing is in them that is not described."""

    model_config = ConfigDict(extra="forbid")


class FieldError(Shown):
    field: str
    message: str
    code: str


class Problem(Shown):
    """RFC 9457. `code` is for programs, `detail` for people; `errors` says what is wrong with which field."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str | None
    errors: list[FieldError] | None = None
    id: str | None = Field(None, description="The stored object that the request contradicts.")
    count: int | None = Field(None, description="How many pending generations stand against it.")


class OutputShown(Shown):
    kind: Kind
    index: int
    url: str
    width: int | None
    height: int | None
    duration: float | None
    media_type: str | None


class ErrorShown(Shown):
    code: ErrorCode
    message: str
    provider_code: str | None


class LastProblemShown(Shown):
    code: str
    message: str
    at: Time
    in_a_row: int


class ArtifactShown(Shown):
    """A durable copy of one output. `url` is ours and needs a key; a link that needs none is made with `/link`."""

    kind: Kind
    index: int
    state: Literal["pending", "stored", "failed"]
    size: int | None
    bytes_done: int
    bytes_per_second: float | None
    sha256: str | None
    media_type: str | None
    url: str
    stored_at: Time | None
    error: dict[str, Any] | None


class GenerationShown(Shown):
    id: str = Field(examples=["gen_01jdb8t6xqk3m9v2c5h7n4r8sw"])
    provider: str
    credential: str
    task_id: str
    kind: str | None
    model: str | None
    state: State
    provider_status: str | None = Field(description="The provider's own word.")
    progress: float | None = Field(description="0 to 1.")
    outputs: list[OutputShown]
    error: ErrorShown | None
    last_problem: LastProblemShown | None = Field(
        description="The latest observation that failed; none of them ends it."
    )
    metadata: dict[str, Any]
    tags: list[str]
    webhook_url: str | None
    events: list[str] | None
    download: Literal[True] | list[Kind] | None
    registered_at: Time
    submitted_at: Time | None
    finished_at: Time | None
    last_polled_at: Time | None
    next_poll_at: Time | None
    expected_at: Time | None = Field(description="When the end is expected, learned from generations like it.")
    timeout_at: Time
    give_up_at: Time
    polls: int
    version: int = Field(description="Grows with every event or change of outputs, not with polls or progress.")
    artifacts: list[ArtifactShown]


class BatchItem(Shown):
    status: Literal[200, 201, 409, 422]
    generation: GenerationShown | None = None
    problem: Problem | None = None


class BatchShown(Shown):
    """One result per item, in their order."""

    results: list[BatchItem]


class TransitionShown(Shown):
    sequence: int
    from_: State | None = Field(alias="from")
    to: State
    provider_status: str | None
    at: Time
    detail: dict[str, Any] | None


class LinkShown(Shown):
    """`url` needs no key until `expires_at`."""

    url: str
    expires_at: Time


class AttemptShown(Shown):
    number: int
    at: Time
    duration_ms: int
    status_code: int | None
    error_class: (
        Literal["dns", "address", "connect", "tls", "timeout", "protocol", "redirect", "too_large", "status"] | None
    )
    response: str = Field(description="The beginning of the receiver's answer.")
    worker: str = Field(description="Who made the attempt: machine and process.", examples=["web-1/4711"])


class DeliveryShown(Shown):
    id: str
    event_id: str
    type: str
    endpoint_id: str | None
    url: str
    generation_id: str | None
    state: Literal["pending", "delivered", "failed", "cancelled"]
    next_attempt_at: Time | None
    created_at: Time


class DeliveryWithAttempts(DeliveryShown):
    attempts: list[AttemptShown]


class EndpointShown(Shown):
    """`headers` shows names only; their values can be written but never read."""

    id: str
    url: str
    events: list[str]
    tags: list[str]
    providers: list[str]
    description: str
    headers: dict[str, str]
    rate_limit: float | None
    schedule: list[float] | None
    ca: str | None
    enabled: bool
    disabled_reason: str | None
    created_at: Time
    updated_at: Time


class SecretShown(Shown):
    secret: str = Field(examples=["whsec_plJ3nmyCDGBKInavdOK15jsl"])


class DeliveryMade(Shown):
    delivery_id: str


class RecoveredShown(Shown):
    recovered: int = Field(description="How many deliveries will be sent again, so far.")
    complete: bool = Field(description="Whether that is all; otherwise the rest follows in the background.")


class CredentialShown(Shown):
    """The provider key itself is never shown; `has_api_key` says whether there is one."""

    name: str
    providers: list[str]
    base_url: str | None
    has_api_key: bool
    from_environment: bool
    requests_per_second: float
    concurrency: int
    poll_price: float | None = Field(
        description="Seconds of waiting that one request is worth; null is the installation's."
    )
    poll_longest: float | None = Field(
        description="Longest gap between two requests in seconds; null is the installation's."
    )
    state: Literal["active", "paused"]
    paused_reason: str | None
    paused_at: Time | None
    callback_url: str
    created_at: Time
    updated_at: Time


class CredentialTest(Shown):
    ok: bool
    status: int | None
    message: str


class CallbackTaken(Shown):
    received: Literal[True]


class KeyShown(Shown):
    id: str
    project: str
    name: str
    prefix: str
    scopes: list[Literal["read", "write", "admin"]]
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None
    last_used_at: Time | None


class KeyMade(KeyShown):
    """`key` is shown this once."""

    key: str


class EventShown(Shown):
    """What a webhook would carry, with its id."""

    id: str
    type: str
    timestamp: Time
    data: dict[str, Any]
