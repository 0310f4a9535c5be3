"""Answers: JSON, and what a route tells the OpenAPI description about itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import Response
from pydantic import BaseModel

FORMS: dict[str, type[BaseModel]] = {}
"""The forms that routes take, by name, for the OpenAPI description: bodies are read by `bodies`, not by the framework."""

HEADERS = {
    "Idempotency-Key": "Any text of your own, up to 255 characters: the same request again within 24 hours gets the same answer.",
    "If-None-Match": "The `ETag` that you know: 304 while nothing changed.",
    "Prefer": "`wait=N`: answer when the version changes, or after N seconds (at most 60).",
    "Range": "`bytes=first-last`, `bytes=first-` or `bytes=-count`.",
    "If-Range": "The `ETag` that you know: the whole file where it is another by now.",
}
"""Headers that are read by hand, with what the description says of them."""


def answer(content: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(orjson.dumps(content), status, dict(headers or {}), "application/json")


def nothing() -> Response:
    """Done, and there is nothing to say."""
    return Response(status_code=204)


def told(
    summary: str, *, shows: type[BaseModel] | None = None, takes: type[BaseModel] | None = None, example: object = None,
    status: int = 200, also: tuple[int, ...] = (), optional: bool = False, may: tuple[int, ...] = (), reads: tuple[str, ...] = (),
) -> dict[str, Any]:  # fmt: skip
    """What the description says of a route.

    The statuses `also` show the same as `status`; `may` are problems besides those that every route has; `reads` are headers.
    """
    route: dict[str, Any] = {"summary": summary, "status_code": status, "openapi_extra": {"x-problems": list(may)}}
    if shows is not None:
        route["responses"] = {code: {"model": shows} for code in (status, *also)}
    if reads:
        route["openapi_extra"]["parameters"] = [_header(name) for name in reads]
    if takes is not None:
        FORMS[takes.__name__] = takes
        content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{takes.__name__}"}}
        if example is not None:
            content["example"] = example
        route["openapi_extra"]["requestBody"] = {"required": not optional, "content": {"application/json": content}}
    return route


def _header(name: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": HEADERS[name], "schema": {"type": "string"}}
