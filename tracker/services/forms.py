"""What a caller may ask, checked once for the API, the CLI and imports. A form knows no storage and reaches no network."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self, TypeVar

import orjson
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from tracker.core import times
from tracker.core.events import SENT
from tracker.core.generation import KINDS
from tracker.errors import FieldProblem, InvalidError
from tracker.services.certificates import Certificates

LONGEST_METADATA = 16 * 1024
DEEPEST_METADATA = 200
"""Levels. JSON is written to 254 here, and metadata stands inside other things wherever it is written."""
DEFAULT_TIMEOUT = timedelta(hours=2)
DEFAULT_GIVE_UP = timedelta(hours=48)
LONGEST_SPAN = timedelta(days=90)

LEAST = 0.001
"""Of anything per second and of spans in seconds: finer makes no difference, and the database keeps no tiny numbers (it has REAL)."""

EVENTS = tuple(sorted(event.value for event in SENT))


def _printable(value: str) -> str:
    if not value.isprintable() or value != value.strip():
        raise ValueError("it must not hold control characters, line breaks, or spaces at its ends")
    return value


def _task_id(value: str) -> str:
    if any(c.isspace() for c in value) or value in {".", ".."}:
        raise ValueError("it is not a task id as providers write them: no spaces, and not . or ..")
    return value


def _nested_deeper(value: Any, levels: int) -> bool:
    inside = [value]
    for _ in range(levels):
        if not inside:
            return False
        inside = [
            part
            for outer in inside
            if isinstance(outer, (dict, list))
            for part in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return any(isinstance(part, (dict, list)) for part in inside)


def _no_nul(value: Any) -> Any:
    """PostgreSQL stores no NUL and no half surrogate pair, in text as in JSON."""
    try:
        written = orjson.dumps(value)
    except (TypeError, RecursionError):
        raise ValueError(
            "it holds what JSON cannot carry (a number over 64 bits, broken Unicode, or nesting without end)"
        ) from None
    if b"\\u0000" in written:
        raise ValueError("it must not hold the NUL character")
    return value


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    _no_nul(value)
    if len(orjson.dumps(value)) > LONGEST_METADATA:
        raise ValueError(f"it is {len(orjson.dumps(value)):,} bytes of JSON, and {LONGEST_METADATA:,} are allowed")
    if _nested_deeper(value, DEEPEST_METADATA):
        raise ValueError(f"it is nested deeper than {DEEPEST_METADATA} levels")
    return value


def _span(value: object) -> timedelta:
    span = times.duration(value)
    if span is None:
        raise ValueError("write seconds (7200) or an ISO 8601 duration without years and months (PT2H)")
    if not timedelta(seconds=1) <= span <= LONGEST_SPAN:
        raise ValueError("it must lie between 1 second and 90 days")
    return span


def _unique(values: list[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _recent(at: datetime) -> datetime:
    if at.year < 2000 or at.year > 9000:  # noqa: PLR2004 - nothing was generated before, and later years do not survive a time zone
        raise ValueError("that is no time at which anything was generated")
    return at.astimezone(UTC)


Name = Annotated[str, Field(min_length=1, max_length=100), AfterValidator(_printable)]
TaskId = Annotated[str, Field(min_length=1, max_length=512), AfterValidator(_printable), AfterValidator(_task_id)]
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]
Tags = Annotated[list[Name], Field(max_length=50), AfterValidator(_unique)]
Span = Annotated[timedelta, BeforeValidator(_span)]
Time = Annotated[AwareDatetime, AfterValidator(_recent)]
Url = Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_printable)]
Event = Literal[EVENTS]  # type: ignore[valid-type]
Events = Annotated[list[Event], Field(max_length=len(EVENTS)), AfterValidator(_unique)]
Kind = Literal[KINDS]  # type: ignore[valid-type]
Download = Literal[True] | Annotated[list[Kind], Field(min_length=1, max_length=len(KINDS)), AfterValidator(_unique)]
Price = Annotated[float, Field(ge=LEAST, le=3600, allow_inf_nan=False)]
Longest = Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)]


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


def _ascii(value: str) -> str:
    if not value.isascii():
        raise ValueError("headers carry ASCII only; encode it first")
    return value


Header = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")]
HeaderValue = Annotated[str, Field(max_length=4000), AfterValidator(_printable), AfterValidator(_ascii)]
RESERVED_HEADERS = frozenset(
    {
        "host",
        "content-length",
        "content-type",
        "connection",
        "transfer-encoding",
        "user-agent",
        "accept-encoding",
        "expect",
        "te",
        "trailer",
        "upgrade",
    }
)


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if name.lower() in RESERVED_HEADERS or name.lower().startswith("webhook-"):
            raise ValueError(f"{name} is set by us and cannot be replaced")
    return value


Headers = Annotated[dict[Header, HeaderValue], Field(max_length=20), AfterValidator(_headers)]


def _wait(value: float) -> float:
    if 0 < value < LEAST:
        raise ValueError(f"it must be 0, or {LEAST} seconds and more")
    return value


Wait = Annotated[float, Field(ge=0, le=7 * 86_400), AfterValidator(_wait)]
Schedule = Annotated[list[Wait], Field(min_length=1, max_length=30)]


class EndpointForm(Form):
    """Where a project wants its events. Empty filters let everything through; `rate_limit` is deliveries per second, from 0.001."""

    url: Url
    events: Events = []
    tags: Tags = []
    providers: Annotated[list[Name], Field(max_length=50), AfterValidator(_unique)] = []
    description: Annotated[str, Field(max_length=500), AfterValidator(_no_nul)] = ""
    headers: Headers = {}
    rate_limit: Annotated[float, Field(ge=LEAST, le=10_000)] | None = None
    schedule: Schedule | None = None
    ca: Certificates | None = None
    enabled: bool = True


class EndpointChange(EndpointForm):
    """Only the fields that are sent change."""

    url: Url = ""


def _header_safe(key: SecretStr) -> SecretStr:
    secret = key.get_secret_value()
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise ValueError("it cannot be sent in a header: only printable ASCII without spaces is possible")
    return key


class CredentialForm(Form):
    """A provider account. Only the fields that are sent change; `api_key` can be written but never read.

    `poll_price` and `poll_longest` are for its generations that have none of their own; null is the installation's.
    """

    providers: Annotated[list[Name], Field(min_length=1, max_length=50), AfterValidator(_unique)] | None = None
    base_url: Url | None = None
    api_key: Annotated[SecretStr, Field(min_length=1, max_length=4096), AfterValidator(_header_safe)] | None = None
    requests_per_second: Annotated[float, Field(ge=LEAST, le=100_000)] = 20.0
    concurrency: Annotated[int, Field(ge=1, le=100_000)] = 50
    poll_price: Price | None = None
    poll_longest: Longest | None = None


Scope = Literal["read", "write", "admin"]


class KeyForm(Form):
    """An API key to make."""

    name: Annotated[str, Field(max_length=100), AfterValidator(_no_nul)] = ""
    scopes: Annotated[list[Scope], Field(min_length=1, max_length=3), AfterValidator(_unique)] = ["read", "write"]
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
