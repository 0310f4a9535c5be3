"""Pages of lists: the limit, and cursors that callers can hold but not make."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence
from typing import Annotated, Any
from uuid import UUID

from fastapi import Query
from pydantic import AfterValidator

from tracker.errors import FieldProblem, InvalidError

LONGEST = 200
"""Items of one page; a larger `limit` is cut to it, as AIP-158 advises."""
_MARK = 8
"""Bytes of the mark: enough that no guess is taken for a cursor. A cursor carries no authority, so it needs no more."""


Limit = Annotated[
    int,
    Query(ge=1, description=f"Items of a page; more than {LONGEST} are cut to {LONGEST}."),
    AfterValidator(lambda limit: min(limit, LONGEST)),
]
Cursor = Annotated[str | None, Query(description="`next_cursor` of the page before.")]


class Cursors:
    """Makes and reads cursors. `secret` is the same in all processes of an installation."""

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"generation-tracker cursors" + secret.encode()).digest()

    def write(self, of: str, last: UUID | None) -> str | None:
        """The cursor behind `last` in the list named `of`; None at the end."""
        return None if last is None else base64.urlsafe_b64encode(last.bytes + self._mark(of, last.bytes)).decode()

    def read(self, of: str, cursor: str | None) -> UUID | None:
        """Where that cursor stands. InvalidError when it was not made here for this list."""
        if not cursor:
            return None
        try:
            found = base64.b64decode(cursor, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            found = b""
        place, mark = found[:16], found[16:]
        if not hmac.compare_digest(mark, self._mark(of, place)):
            raise InvalidError(
                FieldProblem("cursor", "it is unknown; use the next_cursor of the page before", "cursor")
            )
        return UUID(bytes=place)

    def _mark(self, of: str, place: bytes) -> bytes:
        return hmac.digest(self._key, of.encode() + b"\0" + place, "sha256")[:_MARK]


def page(shown: Sequence[Any], next_cursor: str | None) -> dict[str, Any]:
    """A list as every call answers it."""
    return {"data": list(shown), "next_cursor": next_cursor}
