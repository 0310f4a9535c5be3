"""Provider accounts, and the callbacks that providers send to them. Provider keys go in and never come out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from tracker.api import bodies, views
from tracker.api.answers import answer, nothing, told
from tracker.api.auth import Admin, Reader, refuse_nul
from tracker.api.bodies import Body
from tracker.api.context import Here, Use
from tracker.api.lists import CredentialPage
from tracker.api.paging import page
from tracker.api.schemas import CallbackTaken, CredentialShown, CredentialTest
from tracker.services.fields import Name as FormName
from tracker.services.forms import CredentialForm

routes = APIRouter(prefix="/v1/credentials", tags=["credentials"])
callbacks = APIRouter(prefix="/callbacks", tags=["callbacks"])

EXAMPLE = {"providers": ["luma"], "base_url": "https://yunwu.ai", "api_key": "sk-...", "requests_per_second": 20}
Name = Annotated[FormName, Path(description="As registrations name it; `default` is used where they name none.")]
Provider = Annotated[
    str | None, Query(description="Where the environment gives a `default` for each of several providers: which one.")
]
Force = Annotated[bool, Query(description="Do it although generations are pending.")]


@routes.get("", **told("List credentials by name", shows=CredentialPage))
def list_(caller: Reader, here: Here) -> Response:
    """Those of the environment included."""
    return answer(
        page([views.credential(c, here.base_url) for c in here.services.credentials.all(caller.project_id)], None)
    )


@routes.get("/{name}", **told("Read a credential", shows=CredentialShown, may=(404,)))
def get(caller: Reader, name: Name, here: Here, provider: Provider = None) -> Response:
    """The provider key is never shown."""
    return answer(views.credential(here.services.credentials.get(caller.project_id, name, provider), here.base_url))


@routes.put(
    "/{name}",
    **told("Store or change a credential", takes=CredentialForm, shows=CredentialShown, example=EXAMPLE, may=(409,)),
)
def put(caller: Admin, name: Name, sent: Body, here: Here, force: Force = False) -> Response:
    """Scope `admin`. What is not sent stays, the key included. A new `base_url` while generations are pending needs `force`."""
    stored = here.services.credentials.put(caller.project_id, name, sent.form(CredentialForm), force=force)
    return answer(views.credential(stored, here.base_url))


@routes.delete("/{name}", **told("Remove a credential", status=204, may=(404, 409)))
def delete(caller: Admin, name: Name, services: Use, force: Force = False) -> Response:
    """Scope `admin`. 409 with the count while generations are pending; `force` ends them as `credential_deleted`."""
    services.credentials.delete(caller.project_id, name, force=force)
    return nothing()


@routes.post("/{name}/resume", **told("Let a paused credential go on", shows=CredentialShown, may=(404,)))
def resume(caller: Admin, name: Name, here: Here, provider: Provider = None) -> Response:
    """Scope `admin`. Its generations are asked about again, within its budget.

    Every account of this name goes on, unless `provider` names one; the answer shows the first that was paused.
    """
    resumed = here.services.credentials.resume(caller.project_id, name, provider)
    return answer(views.credential(resumed[0], here.base_url))


@routes.post(
    "/{name}/test", **told("Ask the provider whether it accepts the key", shows=CredentialTest, may=(404, 409))
)
def try_out(caller: Admin, name: Name, services: Use, provider: Provider = None) -> Response:
    """Scope `admin`. One harmless question about a task that no provider has."""
    return answer(services.credentials.test(caller.project_id, name, provider))


@callbacks.post(
    "/{provider}/{token}", **told("A provider says that something happened", shows=CallbackTaken, may=(404,))
)
async def callback(request: Request, provider: str, token: str, services: Use) -> Response:
    """Never trusted: it only makes the poll happen now. Tasks that nobody registered are dropped. The token is the credential's."""
    refuse_nul(request)
    body = await bodies.read(request, bodies.SMALL)
    await run_in_threadpool(services.credentials.callback, provider, token, body)
    return answer({"received": True})
