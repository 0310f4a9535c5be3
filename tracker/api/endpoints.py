"""Webhook endpoints, and the secrets that sign."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from tracker.api import views
from tracker.api.answers import answer, nothing, told
from tracker.api.auth import Admin, Reader, Writer
from tracker.api.bodies import Body
from tracker.api.context import Here, Use
from tracker.api.lists import EndpointPage
from tracker.api.orders import RecoverForm
from tracker.api.paging import Cursor, Limit, page
from tracker.api.repeats import once
from tracker.api.schemas import DeliveryMade, EndpointShown, RecoveredShown, SecretShown
from tracker.core import ids
from tracker.services.forms import EndpointChange, EndpointForm
from tracker.store.endpoints import Endpoint

routes = APIRouter(prefix="/v1/endpoints", tags=["endpoints"])
secrets = APIRouter(prefix="/v1/secret", tags=["endpoints"])

LIST = "endpoints"
EXAMPLE = {
    "url": "https://example.com/hooks",
    "events": ["generation.completed", "generation.failed"],
    "tags": ["shop"],
}
Id = Annotated[str, Path(description="`ep_...`")]


@routes.post(
    "",
    **told(
        "Add an endpoint",
        takes=EndpointForm,
        shows=EndpointShown,
        example=EXAMPLE,
        status=201,
        reads=("Idempotency-Key",),
    ),
)
def create(caller: Writer, sent: Body, services: Use) -> Response:
    """It gets a secret of its own. Empty filters let every event through."""
    form = sent.form(EndpointForm)
    return once(services, caller, sent, lambda: _created(services.endpoints.create(caller.project_id, form)))


def _created(made: Endpoint) -> Response:
    shown = views.endpoint(made)
    return answer(shown, 201, {"Location": f"/v1/endpoints/{shown['id']}"})


@routes.get("", **told("List endpoints, newest first", shows=EndpointPage))
def list_(caller: Reader, here: Here, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """Header values are never shown."""
    found, last = here.services.endpoints.page(caller.project_id, here.cursors.read(LIST, cursor), limit)
    return answer(page([views.endpoint(e) for e in found], here.cursors.write(LIST, last)))


@routes.get("/{endpoint_id}", **told("Read an endpoint", shows=EndpointShown, may=(404,)))
def get(caller: Reader, endpoint_id: Id, services: Use) -> Response:
    """Header values are never shown."""
    return answer(views.endpoint(services.endpoints.get(caller.project_id, views.parsed("ep", endpoint_id))))


@routes.patch("/{endpoint_id}", **told("Change an endpoint", takes=EndpointChange, shows=EndpointShown, may=(404,)))
def change(caller: Writer, endpoint_id: Id, sent: Body, services: Use) -> Response:
    """Only the fields that are sent change; what still waits goes to the new URL. `enabled: true` turns it on again."""
    form = sent.form(EndpointChange)
    return answer(views.endpoint(services.endpoints.edit(caller.project_id, views.parsed("ep", endpoint_id), form)))


@routes.delete("/{endpoint_id}", **told("Remove an endpoint with its deliveries", status=204, may=(404,)))
def delete(caller: Writer, endpoint_id: Id, services: Use) -> Response:
    """What still waited for it is not sent."""
    services.endpoints.delete(caller.project_id, views.parsed("ep", endpoint_id))
    return nothing()


@routes.post("/{endpoint_id}/test", **told("Send a ping", shows=DeliveryMade, status=202, may=(404,)))
def test(caller: Writer, endpoint_id: Id, services: Use) -> Response:
    """The delivery tells how it went."""
    made = services.endpoints.test(caller.project_id, views.parsed("ep", endpoint_id))
    return answer({"delivery_id": ids.public("dlv", made)}, 202)


@routes.post(
    "/{endpoint_id}/recover",
    **told(
        "Send again what failed or was missed", takes=RecoverForm, shows=RecoveredShown, status=202, may=(404, 409),
        example={"since": "2026-11-01T00:00:00Z"},
    ),
)  # fmt: skip
def recover(caller: Writer, endpoint_id: Id, sent: Body, services: Use) -> Response:
    """Since `since`, events that happened while the endpoint was disabled included. 409 while it still is.

    Begins at once; a long one goes on in the background, which `complete` tells.
    """
    form = sent.form(RecoverForm)
    done = services.endpoints.recover(caller.project_id, views.parsed("ep", endpoint_id), form.since)
    return answer({"recovered": done.count, "complete": done.complete}, 202)


@routes.get("/{endpoint_id}/secret", **told("The secret that signs for an endpoint", shows=SecretShown, may=(404,)))
def secret(caller: Admin, endpoint_id: Id, services: Use) -> Response:
    """Scope `admin`: who knows it can sign in our name."""
    return answer({"secret": services.endpoints.secret(caller.project_id, views.parsed("ep", endpoint_id))})


@routes.post("/{endpoint_id}/rotate-secret", **told("A new secret for an endpoint", shows=SecretShown, may=(404,)))
def rotate(caller: Admin, endpoint_id: Id, services: Use) -> Response:
    """Scope `admin`. The old one signs beside it for 24 h."""
    return answer({"secret": services.endpoints.rotate_secret(caller.project_id, views.parsed("ep", endpoint_id))})


@secrets.get("", **told("The secret that signs for every webhook_url", shows=SecretShown))
def project_secret(caller: Admin, services: Use) -> Response:
    """Scope `admin`: who knows it can sign in our name. Receivers of different owners should get endpoints instead."""
    return answer({"secret": services.endpoints.project_secret(caller.project_id)})


@secrets.post("/rotate", **told("A new secret for every webhook_url", shows=SecretShown))
def rotate_project_secret(caller: Admin, services: Use) -> Response:
    """Scope `admin`. The old one signs beside it for 24 h."""
    return answer({"secret": services.endpoints.rotate_project_secret(caller.project_id)})
