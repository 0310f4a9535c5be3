"""Deliveries: which event went to whom, with every attempt, and again on demand."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response

from tracker.api import views
from tracker.api.answers import answer, told
from tracker.api.auth import Reader, Writer
from tracker.api.context import Context, Here, Use
from tracker.api.generations import Id as GenerationId
from tracker.api.lists import DeliveryPage
from tracker.api.paging import Cursor, Limit, page
from tracker.api.schemas import DeliveryWithAttempts

routes = APIRouter(prefix="/v1", tags=["deliveries"])

LIST = "deliveries"
Id = Annotated[str, Path(description="`dlv_...`")]
State = Annotated[Literal["pending", "delivered", "failed", "cancelled"] | None, Query()]


@routes.get("/deliveries", **told("List deliveries, newest first", shows=DeliveryPage))
def list_(  # noqa: PLR0917 - each is one filter of the query string
    caller: Reader,
    here: Here,
    state: State = None,
    endpoint_id: str | None = None,
    generation_id: str | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Filters narrow together."""
    return _page(
        here, here.services.deliveries.page(
            caller.project_id, here.cursors.read(LIST, cursor), limit, state=state,
            endpoint_id=None if endpoint_id is None else views.parsed("ep", endpoint_id),
            generation_id=None if generation_id is None else views.parsed("gen", generation_id),
        ),
    )  # fmt: skip


@routes.get(
    "/generations/{generation_id}/deliveries", **told("Webhooks about a generation", shows=DeliveryPage, may=(404,))
)
def of_generation(
    caller: Reader, generation_id: GenerationId, here: Here, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """Newest first."""
    id_ = views.parsed("gen", generation_id)
    here.services.generations.get(caller.project_id, id_)
    before = here.cursors.read(LIST, cursor)
    return _page(here, here.services.deliveries.page(caller.project_id, before, limit, generation_id=id_))


@routes.get(
    "/deliveries/{delivery_id}", **told("Read a delivery with its attempts", shows=DeliveryWithAttempts, may=(404,))
)
def get(caller: Reader, delivery_id: Id, services: Use) -> Response:
    """Attempts are listed oldest first."""
    return answer(_whole(*services.deliveries.get(caller.project_id, views.parsed("dlv", delivery_id))))


@routes.post(
    "/deliveries/{delivery_id}/redeliver",
    **told("Send it again now", shows=DeliveryWithAttempts, status=202, may=(404,)),
)
def redeliver(caller: Writer, delivery_id: Id, services: Use) -> Response:
    """With the same `webhook-id` and body; takes the place of the automatic next try."""
    return answer(_whole(*services.deliveries.redeliver(caller.project_id, views.parsed("dlv", delivery_id))), 202)


def _page(here: Context, found: tuple[list[Any], Any]) -> Response:
    rows, last = found
    return answer(page([views.delivery(row) for row in rows], here.cursors.write(LIST, last)))


def _whole(row: Any, attempts: list[Any]) -> dict[str, Any]:
    return {**views.delivery(row), "attempts": [views.attempt(attempt) for attempt in attempts]}
