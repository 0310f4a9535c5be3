"""The values that callers give, and what each of them may be. Messages name the mend; forms.py puts the values together."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, AwareDatetime, BeforeValidator, Field, SecretStr

from tracker.core import times
from tracker.core.events import SENT
from tracker.core.generation import KINDS

LONGEST_METADATA = 16 * 1024
DEEPEST_METADATA = 200
"""Levels. JSON is written to 254 here, and metadata stands inside other things wherever it is written."""
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
Providers = Annotated[list[Name], Field(max_length=50), AfterValidator(_unique)]
Span = Annotated[timedelta, BeforeValidator(_span)]
Time = Annotated[AwareDatetime, AfterValidator(_recent)]
Url = Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_printable)]
Remark = Annotated[str, AfterValidator(_no_nul)]
Event = Literal[EVENTS]  # type: ignore[valid-type]
Events = Annotated[list[Event], Field(max_length=len(EVENTS)), AfterValidator(_unique)]
Kind = Literal[KINDS]  # type: ignore[valid-type]
Download = Literal[True] | Annotated[list[Kind], Field(min_length=1, max_length=len(KINDS)), AfterValidator(_unique)]
Price = Annotated[float, Field(ge=LEAST, le=3600, allow_inf_nan=False)]
Longest = Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)]


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


def _header_safe(key: SecretStr) -> SecretStr:
    secret = key.get_secret_value()
    if not (secret.isascii() and secret.isprintable()) or " " in secret:
        raise ValueError("it cannot be sent in a header: only printable ASCII without spaces is possible")
    return key


ApiKey = Annotated[SecretStr, Field(min_length=1, max_length=4096), AfterValidator(_header_safe)]
Scope = Literal["read", "write", "admin"]
Scopes = Annotated[list[Scope], Field(min_length=1, max_length=3), AfterValidator(_unique)]
