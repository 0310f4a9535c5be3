"""What one question to a provider showed: a well-formed status, or a problem. Providers make these; `lifecycle.decide` judges them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from tracker.core.generation import Failure, Output, State


class ProblemCode(StrEnum):
    """Why an observation failed. None of these is a state."""

    UNKNOWN_STATUS = "unknown_status"
    NOT_FOUND = "not_found"
    UNAUTHORIZED = "unauthorized"
    OUT_OF_QUOTA = "out_of_quota"
    RATE_LIMITED = "rate_limited"
    HTTP_ERROR = "http_error"
    UNREADABLE = "unreadable"
    NO_OUTPUT = "no_output"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    TOO_LARGE = "too_large"
    UNDECRYPTABLE = "undecryptable"
    NOT_DESCRIBED = "not_described"


@dataclass(
    slots=True
)  # not frozen, though nobody changes one: thousands a second are made, and a frozen one costs three times as much
class Seen:
    """A well-formed answer. `state` is queued, processing, completed, failed or cancelled; `progress` runs from 0 to 1."""

    status: str
    state: State
    progress: float | None = None
    outputs: tuple[Output, ...] = ()
    error: Failure | None = None
    started_at: datetime | None = None
    raw: object = field(default=None, repr=False, compare=False)
    """The parsed JSON of the answer, as far as it is about this task: a batch answer holds those of many."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An observation that failed. `retry_after` is the provider's wish in seconds.

    `status` is the provider's word where it gave one: an unknown word, too, shows that the task was seen there.
    """

    code: ProblemCode
    message: str
    retry_after: float | None = None
    status: str | None = None


Observation = Seen | Problem
