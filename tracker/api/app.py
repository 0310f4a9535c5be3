"""The application: routes, frame and problems put together. What it needs is given to it; it reads no environment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Route

from tracker import bell
from tracker.api import (
    artifacts,
    credentials,
    dashboard,
    deliveries,
    docs,
    dropin,
    endpoints,
    events,
    generations,
    health,
    keys,
    problems,
)
from tracker.api.context import Context
from tracker.api.frame import Frame
from tracker.api.measures import Requests
from tracker.api.openapi import describe
from tracker.api.waiting import Bells
from tracker.errors import TrackerError
from tracker.settings import Settings
from tracker.wiring import Services

ROUTERS: tuple[APIRouter, ...] = (
    generations.registrations,
    generations.routes,
    artifacts.routes,
    events.routes,
    endpoints.routes,
    endpoints.secrets,
    deliveries.routes,
    credentials.routes,
    keys.routes,
    credentials.callbacks,
    health.routes,
    docs.routes,
    dropin.routes,
    dashboard.routes,
)


def create_app(settings: Settings, services: Services) -> FastAPI:
    """The API of one process. The caller keeps the services and closes them."""
    app = FastAPI(
        title="Generation Tracker", lifespan=_lifespan, redirect_slashes=False, docs_url=None, redoc_url=None,
        generate_unique_id_function=_operation,
    )  # fmt: skip
    app.state.context = Context.of(settings, services)
    app.state.requests = Requests()
    for router in ROUTERS:
        app.include_router(router)
    for error in (TrackerError, HTTPException, RequestValidationError):
        app.add_exception_handler(error, _problem)
    app.add_middleware(Frame, requests=app.state.requests)
    app.openapi = partial(describe, app)  # type: ignore[method-assign]
    return app


def _operation(route: APIRoute) -> str:
    """The name that generated clients call it by, such as `generations_cancel`."""
    return f"{route.tags[0] if route.tags else 'docs'}_{route.name}".rstrip("_")


async def _problem(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405:  # noqa: PLR2004 - method not allowed
        error.headers = {"Allow": ", ".join(_methods(request.url.path))}
    return problems.answer(error, request)


def _methods(path: str) -> list[str]:
    """Every method that some route has at this path: the framework knows only the first route's."""
    found: set[str] = set()
    for router in ROUTERS:
        for route in router.routes:
            if isinstance(route, Route) and route.path_regex.fullmatch(path):
                found |= route.methods or set()
    return sorted(found)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    context: Context = app.state.context
    redis_url = context.settings.required("redis_url")
    listening = asyncio.create_task(Bells(redis_url, bell.CHANGED, [context.versions, context.news]).listen())
    try:
        yield
    finally:
        context.close()
        # Asked again until it has ended: a connection that is just being made may swallow the first request.
        while not listening.done():
            listening.cancel()
            await asyncio.wait({listening}, timeout=0.1)
