"""Stored copies: what there is, the bytes, and links that need no key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Path, Query, Request, Response, Security
from fastapi.security import HTTPAuthorizationCredentials
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, StreamingResponse

from tracker.api import ranges, views
from tracker.api.answers import answer, told
from tracker.api.auth import Reader, authenticated, bearer, refuse_nul
from tracker.api.bodies import Body, Sent
from tracker.api.conditions import names
from tracker.api.context import Here, Use
from tracker.api.generations import Id
from tracker.api.lists import ArtifactPage
from tracker.api.orders import LinkForm
from tracker.api.paging import page
from tracker.api.schemas import LinkShown
from tracker.core.events import artifact_fields
from tracker.core.generation import KINDS
from tracker.core.times import rfc3339
from tracker.errors import NotFoundError
from tracker.services.artifacts import Found
from tracker.services.keys import Caller
from tracker.wiring import Services

routes = APIRouter(prefix="/v1/generations/{generation_id}/artifacts", tags=["artifacts"])

Kind = Annotated[str, Path(description=f"One of {', '.join(KINDS)}.")]
Index = Annotated[int, Path(ge=0, le=32_767, description="From 0 within its kind.")]
LONGEST_NUMBER = 10**15
"""Above any time that a link could carry."""


@routes.get("", **told("Stored copies", shows=ArtifactPage, may=(404,)))
def list_(caller: Reader, generation_id: Id, here: Here) -> Response:
    """Every copy that was wished, whatever became of it."""
    found = here.services.artifacts.list(caller.project_id, views.parsed("gen", generation_id))
    return answer(page([artifact_fields(artifact, here.base_url) for artifact in found], None))


@dataclass(frozen=True)
class Access:
    """Somebody who wants bytes: with a signed link, or with a key."""

    request: Request
    services: Services
    given: HTTPAuthorizationCredentials | None
    expires: int | None
    signature: str | None

    def find(self, generation_id: str, kind: str, index: int) -> Found:
        """The copy, if they may have it."""
        refuse_nul(self.request)
        if self.signature is not None and self.expires is not None:
            return self.services.artifacts.open_link(
                views.parsed("gen", generation_id), kind, index, expires=self.expires, signature=self.signature
            )
        caller = authenticated(self.services, self.given)
        caller.require("read")
        return self.services.artifacts.find(caller.project_id, views.parsed("gen", generation_id), kind, index)


async def _access(
    request: Request,
    services: Use,
    given: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)],
    expires: Annotated[int | None, Query(ge=0, le=LONGEST_NUMBER, description="Of a signed link.")] = None,
    signature: Annotated[str | None, Query(max_length=200, description="Of a signed link.")] = None,
) -> Access:
    return Access(request, services, given, expires, signature)


@dataclass(frozen=True)
class Links:
    """Somebody who wants a link."""

    caller: Caller
    sent: Sent
    services: Services

    def make(self, generation_id: str, kind: str, index: int) -> Response:
        """The link, with the time at which it expires."""
        form = self.sent.optional_form(LinkForm)
        id_ = views.parsed("gen", generation_id)
        url, until = self.services.artifacts.link(self.caller.project_id, id_, kind, index, form.expires_in)
        return answer({"url": url, "expires_at": rfc3339(until)})


async def _links(caller: Reader, sent: Body, services: Use) -> Links:
    return Links(caller, sent, services)


Allowed = Annotated[Access, Depends(_access)]
Linking = Annotated[Links, Depends(_links)]
FILE: dict[str, Any] = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
BYTES = told("The bytes of a stored copy", may=(304, 404, 409, 416), reads=("Range", "If-Range", "If-None-Match")) | {
    "responses": {
        200: {"description": "The whole file.", **FILE},
        206: {"description": "The range that was asked for.", **FILE},
        307: {"description": "A signed link to the object store."},
    }
}
LINK = told("A link that needs no key", takes=LinkForm, shows=LinkShown, optional=True, may=(404, 409))


@routes.get("/{kind}", **BYTES)
@routes.head("/{kind}", include_in_schema=False)
def first(access: Allowed, generation_id: Id, kind: Kind) -> Response:
    """The first copy of a kind. Ranges, `If-Range`, `If-None-Match` (the SHA-256) and HEAD are honoured."""
    return _bytes(access, access.find(generation_id, kind, 0))


@routes.get("/{kind}/{index}", **BYTES)
@routes.head("/{kind}/{index}", include_in_schema=False)
def indexed(access: Allowed, generation_id: Id, kind: Kind, index: Index) -> Response:
    """One copy of a kind. Ranges, `If-Range`, `If-None-Match` (the SHA-256) and HEAD are honoured."""
    return _bytes(access, access.find(generation_id, kind, index))


@routes.post("/{kind}/link", **LINK)
def link(links: Linking, generation_id: Id, kind: Kind) -> Response:
    """For a player or a receiver: signed, and valid for an hour unless `expires_in` says otherwise."""
    return links.make(generation_id, kind, 0)


@routes.post("/{kind}/{index}/link", **LINK)
def indexed_link(links: Linking, generation_id: Id, kind: Kind, index: Index) -> Response:
    """For a player or a receiver: signed, and valid for an hour unless `expires_in` says otherwise."""
    return links.make(generation_id, kind, index)


def _bytes(access: Access, found: Found) -> Response:
    if found.redirect_url is not None:
        return RedirectResponse(found.redirect_url, 307)
    asked, tag, size = access.request.headers, found.artifact.sha256 or "", found.artifact.size or 0
    headers, head_only = _headers(found, tag), access.request.method == "HEAD"
    if names(asked.get("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    span = None if head_only or not _still(asked, tag) else ranges.asked(asked.get("range"), size)
    start, stop = span or (0, size)
    headers["Content-Length"] = str(stop - start)
    if span:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    media_type = found.artifact.media_type or "application/octet-stream"
    empty = head_only or start == stop
    pieces = iter(()) if empty else _begun(access.services.artifacts.read(found, start, stop), found)
    return StreamingResponse(pieces, 206 if span else 200, headers, media_type)


def _headers(found: Found, tag: str) -> dict[str, str]:
    # The name is our own (id, kind, index, extension), so it needs no escaping in the plain form.
    return {
        "ETag": f'"{tag}"',
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": f"inline; filename=\"{found.filename}\"; filename*=UTF-8''{quote(found.filename)}",
    }


def _still(headers: Headers, tag: str) -> bool:
    """Whether If-Range holds: without it, or when it names exactly this content."""
    condition = headers.get("if-range")
    return condition is None or condition.strip() == f'"{tag}"'


def _begun(pieces: Iterator[bytes], found: Found) -> Iterator[bytes]:
    """The same bytes, with the first piece read: a file that is gone must be told before the answer begins."""
    try:
        return chain([next(pieces)], pieces)
    except (StopIteration, FileNotFoundError):
        raise NotFoundError("file of the artifact", f"{found.artifact.kind}/{found.artifact.index}") from None
