"""What a caller may ask, checked once for the API, the CLI and imports. A form knows no storage and reaches no network."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tracker.errors import FieldProblem, InvalidError
from tracker.services.certificates import Certificates
from tracker.services.fields import (
    LEAST,
    ApiKey,
    Download,
    Events,
    Headers,
    Longest,
    Metadata,
    Name,
    Price,
    Providers,
    Remark,
    Schedule,
    Scopes,
    Span,
    Tags,
    TaskId,
    Time,
    Url,
)

DEFAULT_TIMEOUT = timedelta(hours=2)
DEFAULT_GIVE_UP = timedelta(hours=48)


class Form(BaseModel):
    """What every form shares: unknown fields are refused, and errors never repeat what was sent."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class RegistrationForm(Form):
    """A task to track. `timeout` and `give_up_after` count from the registration."""

    provider: Name
    task_id: TaskId
    credential: Name = "default"
    webhook_url: Url | None = None
    events: Events | None = None
    download: Download | None = None
    metadata: Metadata = {}
    tags: Tags = []
    kind: Name | None = None
    model: Name | None = None
    timeout: Span = DEFAULT_TIMEOUT
    give_up_after: Span | None = None
    submitted_at: Time | None = None
    poll_price: Price | None = None
    poll_longest: Longest | None = None

    @model_validator(mode="after")
    def _together(self) -> Self:
        if self.events is not None and self.webhook_url is None:
            raise ValueError("events: it needs webhook_url, whose events it chooses")
        if self.give_up_after is not None and self.give_up_after < self.timeout:
            raise ValueError("give_up_after: it must not be shorter than timeout")
        return self

    @property
    def gives_up_after(self) -> timedelta:
        """From the registration; never before the timeout."""
        return self.give_up_after or max(DEFAULT_GIVE_UP, self.timeout)

    @property
    def wished(self) -> tuple[str, ...] | None:
        """Kinds to keep a copy of: () means all, None means none."""
        return () if self.download is True else None if self.download is None else tuple(self.download)


class GenerationChange(Form):
    """What may be changed while a generation is tracked; only the fields that are sent change."""

    kind: Name | None = None
    credential: Name = "default"
    timeout: Span = DEFAULT_TIMEOUT
    webhook_url: Url | None = None
    tags: Tags = []
    metadata: Metadata = {}


class EndpointForm(Form):
    """Where a project wants its events. Empty filters let everything through; `rate_limit` is deliveries per second, from 0.001."""

    url: Url
    events: Events = []
    tags: Tags = []
    providers: Providers = []
    description: Annotated[Remark, Field(max_length=500)] = ""
    headers: Headers = {}
    rate_limit: Annotated[float, Field(ge=LEAST, le=10_000)] | None = None
    schedule: Schedule | None = None
    ca: Certificates | None = None
    enabled: bool = True


class EndpointChange(EndpointForm):
    """Only the fields that are sent change."""

    url: Url = ""


class CredentialForm(Form):
    """A provider account. Only the fields that are sent change; `api_key` can be written but never read.

    `poll_price` and `poll_longest` are for its generations that have none of their own; null is the installation's.
    """

    providers: Annotated[Providers, Field(min_length=1)] | None = None
    base_url: Url | None = None
    api_key: ApiKey | None = None
    requests_per_second: Annotated[float, Field(ge=LEAST, le=100_000)] = 20.0
    concurrency: Annotated[int, Field(ge=1, le=100_000)] = 50
    poll_price: Price | None = None
    poll_longest: Longest | None = None


class KeyForm(Form):
    """An API key to make."""

    name: Annotated[Remark, Field(max_length=100)] = ""
    scopes: Scopes = ["read", "write"]
    expires_at: Time | None = None


_Form = TypeVar("_Form", bound=BaseModel)


def validated(form: type[_Form], given: Mapping[str, Any]) -> _Form:
    """The form filled with `given`; InvalidError with every problem otherwise."""
    try:
        return form.model_validate(given)
    except ValidationError as wrong:
        raise InvalidError(*problems(wrong)) from None


def problems(wrong: ValidationError) -> list[FieldProblem]:
    """Each problem with the field that it is about, such as `tags.0`."""
    return [_problem(error) for error in wrong.errors(include_url=False, include_input=False)]


def _problem(error: Any) -> FieldProblem:
    message = error["msg"].removeprefix("Value error, ")
    # The branch of a union is pydantic's matter, not the caller's.
    field = ".".join(str(part) for part in error["loc"] if not (isinstance(part, str) and ("[" in part or "-" in part)))
    if not field and ": " in message:
        field, _, message = message.partition(": ")
    if error["type"] == "extra_forbidden":
        message = "there is no such field"
    return FieldProblem(field or "body", message, error["type"])
