"""API keys of the caller's own project. A key is shown once, when it is made."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from tracker.api import views
from tracker.api.answers import answer, nothing, told
from tracker.api.auth import Admin
from tracker.api.bodies import Body
from tracker.api.context import Here, Use
from tracker.api.lists import KeyPage
from tracker.api.paging import Cursor, Limit, page
from tracker.api.schemas import KeyMade, KeyShown
from tracker.services.forms import KeyForm

routes = APIRouter(prefix="/v1/keys", tags=["keys"])

LIST = "keys"
EXAMPLE = {"name": "shop backend", "scopes": ["read", "write"], "expires_at": "2027-12-31T00:00:00Z"}
Id = Annotated[str, Path(description="`key_...`")]


@routes.post("", **told("Make a key", takes=KeyForm, shows=KeyMade, example=EXAMPLE, status=201))
def create(caller: Admin, sent: Body, services: Use) -> Response:
    """Scope `admin`. The answer is not kept for an Idempotency-Key: a key in plain is stored nowhere."""
    made, token = services.keys.create(caller.project_id, sent.form(KeyForm))
    shown = views.key(made)
    return answer({**shown, "key": token}, 201, {"Location": f"/v1/keys/{shown['id']}"})


@routes.get("", **told("List keys, newest first", shows=KeyPage))
def list_(caller: Admin, here: Here, limit: Limit = 50, cursor: Cursor = None) -> Response:
    """Scope `admin`. Revoked ones stay listed."""
    found, last = here.services.keys.page(caller.project_id, here.cursors.read(LIST, cursor), limit)
    return answer(page([views.key(k) for k in found], here.cursors.write(LIST, last)))


@routes.get("/{key_id}", **told("Read a key's record", shows=KeyShown, may=(404,)))
def get(caller: Admin, key_id: Id, services: Use) -> Response:
    """Scope `admin`. The key itself is never shown again."""
    return answer(views.key(services.keys.get(caller.project_id, views.parsed("key", key_id))))


@routes.delete("/{key_id}", **told("Revoke a key", status=204, may=(404,)))
def revoke(caller: Admin, key_id: Id, services: Use) -> Response:
    """Scope `admin`. At once, and for good."""
    services.keys.revoke(caller.project_id, views.parsed("key", key_id))
    return nothing()
