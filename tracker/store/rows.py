"""Between JSON columns and values."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from tracker.core.events import output_fields
from tracker.core.generation import ErrorCode, Failure, LastProblem, Output


def outputs_from(stored: list[dict[str, Any]] | None) -> tuple[Output, ...]:
    """Outputs as they were stored."""
    return tuple(Output(**fields) for fields in stored or ())


def outputs_to(outputs: Iterable[Output]) -> list[dict[str, Any]]:
    """Outputs as they are stored."""
    return [output_fields(output) for output in outputs]


def failure_from(stored: dict[str, Any] | None) -> Failure | None:
    """An error as it was stored."""
    return (
        None if stored is None else Failure(ErrorCode(stored["code"]), stored["message"], stored.get("provider_code"))
    )


def failure_to(failure: Failure | None) -> dict[str, Any] | None:
    """An error as it is stored."""
    return (
        None
        if failure is None
        else {"code": failure.code.value, "message": failure.message, "provider_code": failure.provider_code}
    )


def problem_from(stored: dict[str, Any] | None) -> LastProblem | None:
    """A last problem as it was kept when the schedule's row was removed."""
    if stored is None:
        return None
    return LastProblem(stored["code"], stored["message"], datetime.fromisoformat(stored["at"]), stored["in_a_row"])
