"""Whether we live, whether we are ready, and the figures for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import GaugeMetricFamily

from tracker.api.answers import answer
from tracker.api.auth import authenticated, bearer
from tracker.api.context import Here, Use
from tracker.api.problems import NotReadyError
from tracker.errors import SchemaOutdatedError
from tracker.services.health import Health

routes = APIRouter(tags=["health"])

PROBLEMS = {"x-problems": [503], "security": []}


@routes.get("/healthz", summary="Alive", openapi_extra={"x-problems": [], "security": []})
async def alive() -> Response:
    """Touches nothing."""
    return answer({"alive": True})


@routes.get("/readyz", summary="Ready", openapi_extra=PROBLEMS)
def ready(
    services: Use,
    deep: Annotated[
        bool, Query(description="Fail also when the broker, the tick or the poll workers are not well.")
    ] = False,
) -> Response:
    """200 when database and schema are right; tells of the broker, the age of the last tick in seconds, and the lag of polls.

    `untaken` is for how many seconds batches of polls have gone out without one being taken; null while all is well.
    """
    try:
        state = services.health.ready()
    except SchemaOutdatedError as old:
        raise NotReadyError(str(old), {"ready": False}) from None
    if deep and not state["healthy"]:
        raise NotReadyError("the broker, Redis, the tick or the poll workers are not well", state)
    return answer(state)


@routes.get(
    "/metrics", summary="Figures for Prometheus",
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}, openapi_extra={"x-problems": [401, 403, 503]},
)  # fmt: skip
def metrics(
    request: Request, here: Here, given: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
) -> Response:
    """Needs a key with scope `admin`, unless the API is reachable from this machine alone."""
    if not here.settings.api_on_loopback:
        authenticated(here.services, given).require("admin")
    own: bytes = generate_latest(request.app.state.requests.registry)
    return Response(own + generate_latest(_Figures(here.services.health)), media_type=CONTENT_TYPE_LATEST)


class _Figures:
    """The installation's gauges in the form that the exposition wants."""

    def __init__(self, health: Health) -> None:
        self._figures = health.figures()

    def collect(self) -> Iterator[Any]:
        for name, rows in self._figures.items():
            labels = sorted({label for row, _ in rows for label in row})
            family = GaugeMetricFamily(name, name.removeprefix("tracker_").replace("_", " "), labels=labels)
            for row, value in rows:
                family.add_metric([row[label] for label in labels], value)
            yield family
