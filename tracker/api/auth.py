"""Who asks, and whether the key's scopes allow it. Keys are judged by the keys service; nothing here knows how they are stored."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tracker.api.context import Use
from tracker.errors import FieldProblem, InvalidError, UnauthorizedError
from tracker.services.keys import Caller
from tracker.wiring import Services

bearer = HTTPBearer(
    auto_error=False, scheme_name="apiKey", description="`trk_...`, made by `POST /v1/keys` or `tracker keys create`."
)


def authenticated(services: Services, given: HTTPAuthorizationCredentials | None) -> Caller:
    """The caller of this bearer. UnauthorizedError without a valid one."""
    if given is None:
        raise UnauthorizedError("send your API key: Authorization: Bearer trk_...")
    return services.keys.authenticate(given.credentials)


def refuse_nul(request: Request) -> None:
    """PostgreSQL stores no NUL, so nothing it was asked for can hold one."""
    given = [*request.path_params.items(), *request.query_params.multi_items()]
    problems = [
        FieldProblem(name, "it must not hold the NUL character", "nul") for name, value in given if "\0" in str(value)
    ]
    if problems:
        raise InvalidError(*problems)


class _Needs:
    """A dependency: the caller, whose key must carry `scope`."""

    def __init__(self, scope: str) -> None:
        self._scope = scope

    def __call__(
        self, request: Request, services: Use, given: Annotated[HTTPAuthorizationCredentials | None, Security(bearer)]
    ) -> Caller:
        caller = authenticated(services, given)
        caller.require(self._scope)
        refuse_nul(request)
        return caller


WRITES = _Needs("write")
Reader = Annotated[Caller, Depends(_Needs("read"))]
Writer = Annotated[Caller, Depends(WRITES)]
Admin = Annotated[Caller, Depends(_Needs("admin"))]
