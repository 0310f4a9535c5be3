"""What went wrong, as callers read it: the one place where errors become HTTP statuses (RFC 9457). Internals are never shown."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tracker.couriers.store import StorageError
from tracker.errors import (
    AddressRefusedError,
    ConflictError,
    FieldProblem,
    ForbiddenError,
    InvalidError,
    NotFoundError,
    PayloadTooLargeError,
    TrackerError,
    UnauthorizedError,
)
from tracker.store.db import unreachable

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER = "5"
"""Seconds. About what a database needs to come back after a restart."""


class MalformedError(TrackerError):
    """The body is not JSON."""

    code = "malformed"


class BusyError(TrackerError):
    """Too many wait already, or we are about to stop."""

    code = "busy"


class NotReadyError(TrackerError):
    """We cannot work, or not well. `state` is what is known of it."""

    code = "not_ready"

    def __init__(self, reason: str, state: Mapping[str, Any]) -> None:
        super().__init__(reason)
        self.state = state


class UnsatisfiableError(TrackerError):
    """A range that lies outside of what is stored. `size` is in bytes."""

    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"the range lies outside of the {size:,} bytes that there are")
        self.size = size


STATUS: dict[type[TrackerError], HTTPStatus] = {
    MalformedError: HTTPStatus.BAD_REQUEST,
    UnauthorizedError: HTTPStatus.UNAUTHORIZED,
    ForbiddenError: HTTPStatus.FORBIDDEN,
    NotFoundError: HTTPStatus.NOT_FOUND,
    ConflictError: HTTPStatus.CONFLICT,
    PayloadTooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    UnsatisfiableError: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
    InvalidError: HTTPStatus.UNPROCESSABLE_ENTITY,
    AddressRefusedError: HTTPStatus.UNPROCESSABLE_ENTITY,
    BusyError: HTTPStatus.SERVICE_UNAVAILABLE,
    NotReadyError: HTTPStatus.SERVICE_UNAVAILABLE,
    StorageError: HTTPStatus.SERVICE_UNAVAILABLE,
}

TITLES = {
    "malformed": "The body is not JSON",
    "unauthorized": "No valid API key",
    "forbidden": "The API key lacks a scope",
    "not_found": "There is no such thing",
    "method_not_allowed": "This method is not possible here",
    "conflict": "The request contradicts what is stored",
    "too_large": "The body is too large",
    "range_not_satisfiable": "There are no such bytes",
    "invalid": "The request cannot be accepted",
    "address_refused": "The address may not be reached",
    "busy": "Too many requests wait already",
    "not_ready": "Not ready",
    "storage": "The store of artifacts cannot be reached now",
    "unavailable": "The database cannot be reached now",
    "internal": "Something went wrong on our side",
}


def answer(error: BaseException, request: Request) -> Response:
    """The problem+json answer to any error whatever."""
    status, fields, headers = _told(error)
    problem = _problem(status, fields, request)
    return Response(orjson.dumps(problem), status, headers, MEDIA_TYPE)


def of_item(error: TrackerError, request: Request) -> dict[str, Any]:
    """The problem of one item of a batch, which is answered beside the good ones."""
    status, fields, _ = _told(error)
    return {"status": int(status), "problem": _problem(status, fields, request)}


def _problem(status: HTTPStatus, fields: Mapping[str, Any], request: Request) -> dict[str, Any]:
    code = fields["code"]
    return {
        # A plain URN: problems are told apart by `code`, and nobody is sent to a page that may move.
        "type": f"urn:generation-tracker:problem:{code}",
        "title": TITLES.get(code, status.phrase),
        "status": int(status),
        "detail": fields["detail"],
        "request_id": request.scope.get("state", {}).get("request_id"),
        **fields,
    }


def _told(error: BaseException) -> tuple[HTTPStatus, dict[str, Any], dict[str, str]]:
    match error:
        case TrackerError():
            return _of_ours(error)
        case RequestValidationError():
            return _of_ours(InvalidError(*map(_field_problem, error.errors())))
        case HTTPException():
            return _of_framework(error)
        case _ if unreachable(error):
            detail = "the database cannot be reached now; nothing was lost, ask again"
            return HTTPStatus.SERVICE_UNAVAILABLE, _fields("unavailable", detail), {"Retry-After": RETRY_AFTER}
        case _:
            detail = "an unexpected error; quote the request_id when you report it"
            return HTTPStatus.INTERNAL_SERVER_ERROR, _fields("internal", detail), {}


def _of_ours(error: TrackerError) -> tuple[HTTPStatus, dict[str, Any], dict[str, str]]:
    status = next((STATUS[cls] for cls in type(error).__mro__ if cls in STATUS), HTTPStatus.INTERNAL_SERVER_ERROR)
    if status is HTTPStatus.INTERNAL_SERVER_ERROR:
        return status, _fields("internal", "an unexpected error; quote the request_id when you report it"), {}
    fields, headers = _fields(error.code, str(error)), {}
    match error:
        case InvalidError():
            fields["errors"] = _errors(error.problems)
        case ConflictError():
            told = {"errors": _errors(error.problems), "id": error.id, "count": error.count}
            fields |= {name: value for name, value in told.items() if value not in (None, [])}
        case UnauthorizedError():
            headers["WWW-Authenticate"] = 'Bearer realm="generation-tracker"'
        case UnsatisfiableError():
            headers["Content-Range"] = f"bytes */{error.size}"
        case PayloadTooLargeError():
            # What is still being sent is not read to its end.
            headers["Connection"] = "close"
        case NotReadyError():
            fields |= error.state
        case StorageError():
            # Its own words name places inside, which are not the caller's to know.
            fields["detail"] = "the store of artifacts cannot be reached now; ask again"
        case _:
            pass
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = RETRY_AFTER
    return status, fields, headers


def _of_framework(error: HTTPException) -> tuple[HTTPStatus, dict[str, Any], dict[str, str]]:
    status, headers = HTTPStatus(error.status_code), dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        return status, _fields("method_not_allowed", f"use {headers.get('Allow', 'another method')}"), headers
    if status is HTTPStatus.NOT_FOUND:
        return status, _fields("not_found", "there is nothing at this path; see /docs for what there is"), headers
    return status, _fields(status.name.lower(), status.description or status.phrase), headers


def _fields(code: str, detail: str) -> dict[str, Any]:
    return {"code": code, "detail": detail}


def _errors(problems: tuple[FieldProblem, ...]) -> list[dict[str, str]]:
    return [{"field": p.field, "message": p.message, "code": p.code} for p in problems]


def _field_problem(error: Mapping[str, Any]) -> FieldProblem:
    # The first place says whether it was query, path or header, which the name tells anyway.
    place = [str(part) for part in error["loc"][1:]] or [str(part) for part in error["loc"]]
    return FieldProblem(".".join(place), str(error["msg"]).removeprefix("Value error, "), str(error["type"]))
