"""The OpenAPI description: what the framework finds out by itself, and what it cannot know (our bodies, our problems)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from tracker import __version__
from tracker.api.answers import FORMS
from tracker.api.problems import MEDIA_TYPE
from tracker.api.schemas import Problem

ABOUT = """
Give the tracker the task ids of your AI generations. It asks the provider on a well-chosen schedule, stores every state
transition, and when a generation ends it fires a signed webhook and keeps a durable copy of the result.

- **Keys**: `Authorization: Bearer trk_...`. A key belongs to one project and sees only that one; another project's things are 404.
  Scope `write` includes `read`, and `admin` includes both.
- **Problems** are `application/problem+json` (RFC 9457): `code` is for programs, `errors[]` names each field that is wrong.
  Quote `request_id` (also in `X-Request-ID`) when you report one.
- **Lists** answer `{"data": [...], "next_cursor"}`; pass `next_cursor` back as `cursor` until it is null.
- **Repeating** is safe: registering is idempotent by itself, and creating calls honour `Idempotency-Key` for 24 hours.
- **Times** are RFC 3339 in UTC.
""".strip()

TAGS = [
    {"name": "generations", "description": "Register tasks, follow them, steer them."},
    {"name": "artifacts", "description": "Durable copies of what providers made."},
    {"name": "events", "description": "Everything that happens, live or as a feed."},
    {"name": "endpoints", "description": "Where webhooks go, and the secrets that sign them (Standard Webhooks)."},
    {"name": "deliveries", "description": "Which event went to whom, with every attempt."},
    {"name": "credentials", "description": "Provider accounts, their budgets and their health."},
    {"name": "keys", "description": "API keys."},
    {"name": "callbacks", "description": "Where providers may call us."},
    {"name": "health", "description": "For operators and their machines."},
]

EVERYWHERE = (401, 403, 422, 503)
"""Problems that any call with a key may be answered with."""
WITH_BODY = (400, 413)
_REFERENCE = "#/components/schemas/{model}"


def describe(app: FastAPI) -> dict[str, Any]:
    """The description, made once."""
    if app.openapi_schema is None:
        found = get_openapi(
            title="Generation Tracker", version=__version__, summary="Tracks AI video and music generations.", description=ABOUT,
            tags=TAGS, routes=app.routes, license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        )  # fmt: skip
        _add_schemas(found)
        for path in found["paths"].values():
            for operation in path.values():
                _add_problems(operation)
                _leave_out_null(operation)
        app.openapi_schema = found
    return app.openapi_schema


def _add_schemas(found: dict[str, Any]) -> None:
    models = [(model, "validation") for model in (*FORMS.values(), Problem)]
    _, ours = models_json_schema(models, ref_template=_REFERENCE)  # type: ignore[arg-type]
    schemas = found.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(ours["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)


def _add_problems(operation: dict[str, Any]) -> None:
    statuses = set(operation.pop("x-problems", ()))
    if operation.get("security"):
        statuses |= set(EVERYWHERE)
    if "requestBody" in operation:
        statuses |= set(WITH_BODY)
    responses = operation.setdefault("responses", {})
    responses.pop("422", None)
    for status in sorted(statuses):
        responses[str(status)] = _response(HTTPStatus(status))


def _leave_out_null(operation: dict[str, Any]) -> None:
    """A parameter that may be left out is never null: readers of the description would see a type that no query can have."""
    for parameter in operation.get("parameters", ()):
        schema = parameter["schema"]
        kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
        if len(kinds) == 1:
            parameter["schema"] = {name: value for name, value in schema.items() if name != "anyOf"} | kinds[0]


def _response(status: HTTPStatus) -> dict[str, Any]:
    if status is HTTPStatus.NOT_MODIFIED:
        return {"description": "Nothing changed."}
    schema = {"$ref": _REFERENCE.format(model=Problem.__name__)}
    return {"description": status.phrase, "content": {MEDIA_TYPE: {"schema": schema}}}
