"""Between JSON columns and values; and many rows as one JSON parameter, which costs a third of an array for each column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import orjson

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


def records(types: Mapping[str, str], parameter: str = "rows") -> str:
    """What to select from, where the parameter holds objects with these columns."""
    return f"json_to_recordset(CAST(:{parameter} AS json)) AS r {_columns(types)}"


def one_record(types: Mapping[str, str]) -> str:
    """Likewise, where `rows` holds a single object, as the planner then knows."""
    return f"json_to_record(CAST(:rows AS json) -> 0) AS r {_columns(types)}"


def _columns(types: Mapping[str, str]) -> str:
    return f"({', '.join(f'{name} {type_}' for name, type_ in types.items())})"


def as_records(objects: Iterable[Any], types: Mapping[str, str], **made: list[Any]) -> str:
    """The parameter that `records` takes: these attributes of the objects, with the columns of `made` in place of theirs."""
    names = [name for name in types if name not in made]
    rows = [{name: getattr(o, name) for name in names} for o in objects]
    for name, values in made.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return orjson.dumps(rows).decode()
