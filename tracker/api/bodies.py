"""Bodies, read under a bound and turned into JSON or refused. Forms judge what the JSON says."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

import orjson
from fastapi import Depends, Request
from pydantic import BaseModel

from tracker.api.problems import MalformedError
from tracker.errors import FieldProblem, InvalidError, PayloadTooLargeError
from tracker.services import forms

SMALL = 256 * 1024
"""Bytes. The largest form (16 KB of metadata, a CA bundle of 100 KB) fits several times."""
BATCH = 8 * 1024 * 1024
"""Bytes, as the contract says for batches."""

_Form = TypeVar("_Form", bound=BaseModel)


@dataclass(frozen=True)
class Sent:
    """One body as it arrived, and what it takes to know it again."""

    raw: bytes
    fingerprint: bytes
    key: str | None

    @property
    def json(self) -> Any:
        """Its JSON. MalformedError when it is none; strict, so that what is stored can be written again."""
        if not self.raw.strip():
            raise MalformedError("the body is empty; send a JSON object")
        try:
            return orjson.loads(self.raw)
        except orjson.JSONDecodeError as wrong:
            raise MalformedError(f"the body is not JSON: {wrong}") from None

    def form(self, form: type[_Form]) -> _Form:
        """The form that it fills. InvalidError names every field that is wrong."""
        return forms.validated(form, self._object(self.json))

    def optional_form(self, form: type[_Form]) -> _Form:
        """Likewise, where an empty body means the form's defaults."""
        return forms.validated(form, self._object(self.json if self.raw.strip() else {}))

    @staticmethod
    def _object(found: Any) -> dict[str, Any]:
        if not isinstance(found, dict):
            raise InvalidError(FieldProblem("body", "send a JSON object", "dict_type"))
        return found


async def read(request: Request, limit: int) -> bytes:
    """The body, refused with PayloadTooLargeError as soon as it is known to be over `limit` bytes."""
    too_large = PayloadTooLargeError(f"the body is over {limit:,} bytes")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and (len(declared) > len(str(limit)) or int(declared) > limit):
        raise too_large
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise too_large
    return bytes(body)


async def _sent(request: Request, limit: int) -> Sent:
    raw = await read(request, limit)
    target = f"{request.method} {request.url.path}?{request.url.query}\n".encode()
    return Sent(raw, hashlib.sha256(target + raw).digest(), request.headers.get("idempotency-key"))


async def small(request: Request) -> Sent:
    """The body of any form but a batch."""
    return await _sent(request, SMALL)


async def _batch(request: Request) -> Sent:
    return await _sent(request, BATCH)


Body = Annotated[Sent, Depends(small)]
BatchBody = Annotated[Sent, Depends(_batch)]
