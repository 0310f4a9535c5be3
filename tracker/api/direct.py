"""A route that is described as every other, and served in one hop from the event loop to a thread and back."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials
from starlette.concurrency import run_in_threadpool
from typing_extensions import override

from tracker.api.auth import WRITES, bearer
from tracker.api.bodies import Sent, small
from tracker.api.context import Context
from tracker.errors import PayloadTooLargeError


class Direct(APIRoute):
    """For what is asked a hundred times a second: an endpoint of (caller: Writer, sent: Body, here: Here), and of nothing else.

    The framework resolves each dependency by itself, and gives every one that may block a hop of its own: a tenth of what a registration
    costs the API (measured).
    """

    @override
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def handle(request: Request) -> Response:
            given = await bearer(request)
            sent: Sent | PayloadTooLargeError
            try:
                sent = await small(request)
            except PayloadTooLargeError as wrong:
                sent = wrong  # who asks comes first, as everywhere
            return await run_in_threadpool(self._serve, request, given, sent)

        return handle

    def _serve(
        self, request: Request, given: HTTPAuthorizationCredentials | None, sent: Sent | PayloadTooLargeError
    ) -> Response:
        here: Context = request.app.state.context
        caller = WRITES(request, here.services, given)
        if isinstance(sent, PayloadTooLargeError):
            raise sent
        answer: Response = self.endpoint(caller, sent, here)
        return answer
