"""Generations: register, find, follow, steer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import AwareDatetime
from starlette.concurrency import run_in_threadpool

from tracker.api import problems, views
from tracker.api.answers import answer, nothing, told
from tracker.api.auth import Reader, Writer
from tracker.api.bodies import BatchBody, Body
from tracker.api.conditions import names, wish_to_wait
from tracker.api.context import Context, Here
from tracker.api.direct import Direct
from tracker.api.lists import GenerationPage, TransitionPage
from tracker.api.orders import BatchForm, DownloadForm
from tracker.api.paging import Cursor, Limit, page
from tracker.api.problems import BusyError
from tracker.api.repeats import once
from tracker.api.schemas import BatchShown, GenerationShown
from tracker.api.waiting import unless_left
from tracker.core.events import generation_fields
from tracker.core.generation import Generation, State
from tracker.core.lifecycle import FINAL
from tracker.errors import InvalidError, TrackerError
from tracker.services import forms
from tracker.services.forms import GenerationChange, RegistrationForm
from tracker.services.registration import Registered
from tracker.store.generations import Filters

routes = APIRouter(prefix="/v1/generations", tags=["generations"])
registrations = APIRouter(prefix="/v1/generations", tags=["generations"], route_class=Direct)

LIST = "generations"
EXAMPLE = {
    "provider": "luma",
    "task_id": "6c2d0ba5-0c7a-4ad5-9a5f-0a4c6b2f1a0e",
    "webhook_url": "https://example.com/hooks/video",
    "download": True,
    "metadata": {"order": 4711},
    "timeout": "PT1H",
}
Id = Annotated[str, Path(description="`gen_...`")]


@registrations.post(
    "",
    **told(
        "Register a generation",
        takes=RegistrationForm,
        shows=GenerationShown,
        example=EXAMPLE,
        status=201,
        also=(200,),
        may=(409,),
        reads=("Idempotency-Key",),
    ),
)
def register(caller: Writer, sent: Body, here: Here) -> Response:
    """201 for a new one, 200 when the same task is registered already, 409 with the stored `id` when a field differs."""
    form = sent.form(RegistrationForm)
    return once(
        here.services,
        caller,
        sent,
        lambda: _registered(here, here.services.registration.register(caller.project_id, form)),
    )


def _registered(here: Context, made: Registered) -> Response:
    fields = _fields(here, made.generation)
    return answer(fields, 201 if made.created else 200, {"Location": f"/v1/generations/{fields['id']}"})


@routes.post(
    "/batch", **told("Register up to 1,000 generations", shows=BatchShown, takes=BatchForm, reads=("Idempotency-Key",))
)
def register_batch(request: Request, caller: Writer, sent: BatchBody, here: Here) -> Response:
    """One result per item, in order; what is wrong with one does not hinder the others."""
    items = [_form(item) for item in sent.form(BatchForm).generations]

    def work() -> Response:
        outcomes = here.services.registration.register_many(caller.project_id, items)
        return answer({"results": [_result(here, request, outcome) for outcome in outcomes]})

    return once(here.services, caller, sent, work)


def _form(item: Any) -> RegistrationForm | InvalidError:
    try:
        return forms.validated(RegistrationForm, item)
    except InvalidError as wrong:
        return wrong


def _result(here: Context, request: Request, outcome: Registered | TrackerError) -> dict[str, Any]:
    if isinstance(outcome, TrackerError):
        return problems.of_item(outcome, request)
    return {"status": 201 if outcome.created else 200, "generation": _fields(here, outcome.generation)}


@routes.get("", **told("List generations, newest first", shows=GenerationPage))
def list_(  # noqa: PLR0917 - each is one filter of the query string
    caller: Reader,
    here: Here,
    state: Annotated[tuple[State, ...], Query(description="Repeatable.")] = (),
    provider: str | None = None,
    task_id: str | None = None,
    tag: str | None = None,
    registered_after: AwareDatetime | None = None,
    registered_before: AwareDatetime | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
    """Filters narrow together; `state` may be given several times."""
    filters = Filters(
        states=state, provider=provider, task_id=task_id, tag=tag, registered_after=registered_after,
        registered_before=registered_before, before_id=here.cursors.read(LIST, cursor),
    )  # fmt: skip
    found, last = here.services.generations.page(caller.project_id, filters, limit)
    return answer(page([_fields(here, g) for g in found], here.cursors.write(LIST, last)))


@routes.get(
    "/{generation_id}",
    **told(
        "Read a generation, or wait until it changes",
        shows=GenerationShown,
        may=(304, 404),
        reads=("If-None-Match", "Prefer"),
    ),
)
async def get(request: Request, caller: Reader, generation_id: Id, here: Here) -> Response:
    """`If-None-Match` answers 304 while nothing changed. `Prefer: wait=N` (up to 60 s) answers as soon as the version changes."""
    id_ = views.parsed("gen", generation_id)
    known, wish = request.headers.get("if-none-match"), wish_to_wait(request.headers.get("prefer"))
    g = await run_in_threadpool(here.services.generations.get, caller.project_id, id_)
    if wish is not None and g.state not in FINAL and (known is None or names(known, str(g.version))):
        wish = wish if await _waited(request, here, g, wish) else None
        g = await run_in_threadpool(here.services.generations.get, caller.project_id, id_)
    return _conditional(here, g, known, wish)


async def _waited(request: Request, here: Context, g: Generation, seconds: int) -> bool:
    """Wait until the version changes or the time is over; False when too many wait already."""
    try:
        await unless_left(request, here.versions.differs(g.id, g.version, seconds))
    except TimeoutError:
        return True
    except BusyError:
        return False
    return True


def _conditional(here: Context, g: Generation, known: str | None, waited: int | None) -> Response:
    # Weak: polls and progress change the body without a new version.
    headers = {"ETag": f'W/"{g.version}"', "Cache-Control": "private, no-cache"}
    if waited is not None:
        headers["Preference-Applied"] = f"wait={waited}"
    if names(known, str(g.version)):
        return Response(status_code=304, headers=headers)
    return answer(_fields(here, g), headers=headers)


@routes.patch(
    "/{generation_id}", **told("Change a generation", takes=GenerationChange, shows=GenerationShown, may=(404, 409))
)
def change(caller: Writer, generation_id: Id, sent: Body, here: Here) -> Response:
    """Only the fields that are sent change."""
    form = sent.form(GenerationChange)
    return answer(
        _fields(here, here.services.generations.edit(caller.project_id, views.parsed("gen", generation_id), form))
    )


@routes.delete("/{generation_id}", **told("Forget a generation and its artifacts", status=204, may=(404,)))
def delete(caller: Writer, generation_id: Id, here: Here) -> Response:
    """The provider is not told."""
    here.services.generations.delete(caller.project_id, views.parsed("gen", generation_id))
    return nothing()


@routes.post("/{generation_id}/cancel", **told("Stop tracking", shows=GenerationShown, may=(404, 409)))
def cancel(caller: Writer, generation_id: Id, here: Here) -> Response:
    """The provider is not told. 200 again when it is cancelled already, 409 when it is completed or failed."""
    return answer(
        _fields(here, here.services.generations.cancel(caller.project_id, views.parsed("gen", generation_id)))
    )


@routes.post("/{generation_id}/poll", **told("Ask the provider now", shows=GenerationShown, may=(404, 409)))
def poll(caller: Writer, generation_id: Id, here: Here) -> Response:
    """409 on a final one."""
    return answer(_fields(here, here.services.generations.poll(caller.project_id, views.parsed("gen", generation_id))))


@routes.post(
    "/{generation_id}/retrack", **told("Track again what ended by mistake", shows=GenerationShown, may=(404, 409))
)
def retrack(caller: Writer, generation_id: Id, here: Here) -> Response:
    """Deadlines run anew. 409 on a completed one."""
    return answer(
        _fields(here, here.services.generations.retrack(caller.project_id, views.parsed("gen", generation_id)))
    )


@routes.post(
    "/{generation_id}/download",
    **told("Store the outputs", takes=DownloadForm, shows=GenerationShown, optional=True, may=(404, 409)),
)
def download(caller: Writer, generation_id: Id, sent: Body, here: Here) -> Response:
    """Now when it is completed; before, it sets the wish. Without `kinds` everything is stored."""
    form = sent.optional_form(DownloadForm)
    g = here.services.generations.download(caller.project_id, views.parsed("gen", generation_id), form.kinds)
    return answer(_fields(here, g), 202)


@routes.get(
    "/{generation_id}/transitions",
    **told("Every state it went through, oldest first", shows=TransitionPage, may=(404,)),
)
def transitions(caller: Reader, generation_id: Id, here: Here) -> Response:
    """The whole history in one answer."""
    rows = here.services.generations.transitions(caller.project_id, views.parsed("gen", generation_id))
    return answer(page([views.transition(row) for row in rows], None))


def _fields(here: Context, g: Generation) -> dict[str, Any]:
    return generation_fields(g, here.base_url)
