"""The stream of everything that happens in a project: followed live (Server-Sent Events), or pulled as a feed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import APIRouter, Header, Query, Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.responses import StreamingResponse

from tracker.api import views
from tracker.api.answers import answer
from tracker.api.auth import Reader
from tracker.api.context import Context, Here
from tracker.api.lists import EventPage
from tracker.api.paging import Limit, page
from tracker.api.problems import BusyError
from tracker.errors import FieldProblem, InvalidError
from tracker.services.feed import Entry

log = logging.getLogger("tracker.api")
routes = APIRouter(prefix="/v1/events", tags=["events"])

HEARTBEAT = 15.0
"""Seconds without an event after which a comment is sent, so that proxies keep the connection and a dead client is noticed."""
LONGEST = 3600.0
"""Seconds of one stream. The client then comes back with Last-Event-ID and its key is looked at again; nothing is lost."""
STREAM = "text/event-stream"
BEGINNING = "A" * 32
"""The cursor before the first event: 24 bytes of zero."""

After = Annotated[str, Query(description="`next_cursor` of the page before, or the id of an event.")]
LastId = Annotated[str | None, Header(description="Where a broken stream ended: it goes on behind it, without loss.")]


@routes.get(
    "",
    summary="Follow or pull everything that happens",
    responses={200: {"model": EventPage, "content": {STREAM: {"schema": {"type": "string"}}}}},
    openapi_extra={"x-problems": [503]},
)
async def read(  # noqa: PLR0917 - each is one wish of the request
    request: Request, caller: Reader, here: Here, after: After = "", limit: Limit = 50, last_event_id: LastId = None
) -> Response:
    """A page of the feed, oldest first; with `Accept: text/event-stream` a live stream from now on, or behind `Last-Event-ID`."""
    if STREAM in request.headers.get("accept", "").lower():
        return await _stream(here, caller.project_id, after, last_event_id)
    place = after or BEGINNING
    entries = await run_in_threadpool(here.services.feed.page, caller.project_id, place, limit)
    shown = [views.event(entry.id, entry.body) for entry in entries]
    return answer(page(shown, entries[-1].cursor if entries else place))


async def _stream(here: Context, project_id: UUID, after: str, last_event_id: str | None) -> Response:
    if here.news.full:
        raise BusyError("too many follow the stream already; pull the feed instead, or come back later")
    start = last_event_id or after
    if not start:
        start = await run_in_threadpool(here.services.feed.newest, project_id)
    try:
        await run_in_threadpool(here.services.feed.page, project_id, start, 1)
    except InvalidError:
        field = "Last-Event-ID" if last_event_id else "after"
        raise InvalidError(
            FieldProblem(field, "it is no place in this stream; leave it out to begin now", "cursor")
        ) from None
    headers = {"X-Accel-Buffering": "no", "Cache-Control": "no-store"}
    return StreamingResponse(_lines(here, project_id, start), headers=headers, media_type=STREAM)


async def _lines(here: Context, project_id: UUID, cursor: str) -> AsyncIterator[bytes]:
    """Event after event, and a comment where nothing happens for long. Ends when the client leaves, or when we stop."""
    clock = asyncio.get_running_loop().time
    ends = clock() + LONGEST
    seen: str | None = None
    yield b"retry: 1000\n\n"
    while clock() < ends:
        try:
            seen = await here.news.differs(project_id, seen, HEARTBEAT)
        except TimeoutError:
            yield b": nothing new\n\n"
            continue
        except BusyError:
            return
        while entries := await here.pages.behind(project_id, cursor, seen):
            for entry in entries:
                yield _line(entry)
            cursor = entries[-1].cursor


def _line(entry: Entry) -> bytes:
    # JSON holds no line break, which would end the field.
    shown = orjson.dumps(views.event(entry.id, entry.body))
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (entry.cursor.encode(), entry.type.encode(), shown)
