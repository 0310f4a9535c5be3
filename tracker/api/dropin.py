"""In a provider's place: its own paths, its own bodies, served from what is stored. A client changes its base URL, and nothing else.

Errors are in the provider's shape too, save that our database is away.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson
from fastapi import APIRouter, Request, Response

from tracker.api.answers import answer
from tracker.api.context import Use
from tracker.core.lifecycle import FINAL
from tracker.errors import ForbiddenError, UnauthorizedError
from tracker.providers.dropin import DROP_INS, DropIn
from tracker.services.dropin import Stored
from tracker.services.keys import PREFIX
from tracker.wiring import Services

routes = APIRouter(include_in_schema=False)

KEYS = ("authorization", "mj-api-secret", "x-goog-api-key")
"""Where clients of one provider or another show their key."""


def _route(provider: str, place: DropIn) -> Callable[[Request, Services], Response]:
    def dropin(request: Request, services: Use) -> Response:
        task_id = request.path_params.get("task_id") or _in_query(request)
        key = _key(request)
        if "\0" in task_id:
            return _said(place.missing)
        try:
            stored = _stored(services, key, provider, task_id)
        except (UnauthorizedError, ForbiddenError):
            return _said(place.refused)
        if not stored.body and (stored.state is None or stored.state in FINAL):
            return _said(
                place.missing
            )  # also what ended before the provider said anything of it: nobody shall wait for it
        return Response(stored.body or orjson.dumps(place.waiting(task_id)), media_type="application/json")

    return dropin


def _stored(services: Services, key: str, provider: str, task_id: str) -> Stored:
    if not key.startswith(PREFIX):
        return services.dropin.of_provider_key(key, provider, task_id)
    caller = services.keys.authenticate(key)
    caller.require("read")
    return services.dropin.of_project(caller.project_id, provider, task_id)


def _in_query(request: Request) -> str:
    return next((value for name in ("id", "task_id") if (value := request.query_params.get(name))), "")


def _key(request: Request) -> str:
    shown = next((value for name in KEYS if (value := request.headers.get(name))), "")
    scheme, _, key = shown.partition(" ")
    return (key if scheme.lower() in {"bearer", "token"} else shown).strip()


def _said(told: tuple[int, object]) -> Response:
    status, body = told
    return answer(body, status)


for name, in_place in DROP_INS.items():
    for path in in_place.paths:
        routes.add_api_route(path, _route(name, in_place), methods=["GET"], name=f"dropin_{name}")
