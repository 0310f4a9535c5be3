"""Answers: JSON, and what a route tells the OpenAPI description about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Response
from pydantic import BaseModel

FORMS: dict[str, type[BaseModel]] = {}
"""The forms that routes take, by name, for the OpenAPI description: bodies are read by `bodies`, not by the framework."""


def answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(content), status, dict(headers or {}), "application/json")


def nothing() -> Response:
    """Done, and there is nothing to say."""
    return Response(status_code=204)


def told(
    summary: str, *, shows: type[BaseModel] | None = None, takes: type[BaseModel] | None = None, example: object = None,
    status: int = 200, optional: bool = False, may: tuple[int, ...] = (),
) -> dict[str, Any]:  # fmt: skip
    """What the description says of a route. `may` are the statuses of problems besides those that every route has."""
    route: dict[str, Any] = {"summary": summary, "status_code": status, "openapi_extra": {"x-problems": list(may)}}
    if shows is not None:
        route["responses"] = {status: {"model": shows}}
    if takes is not None:
        FORMS[takes.__name__] = takes
        content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{takes.__name__}"}}
        if example is not None:
            content["example"] = example
        route["openapi_extra"]["requestBody"] = {"required": not optional, "content": {"application/json": content}}
    return route
