"""Idempotency-Key: a repeated request is answered with the first one's answer, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response

from tracker.api.bodies import Sent
from tracker.errors import ConflictError, FieldProblem, InvalidError
from tracker.services.keys import Caller
from tracker.wiring import Services

LONGEST_KEY = 255
"""As at Stripe."""
FIELD = "Idempotency-Key"


def once(services: Services, caller: Caller, sent: Sent, work: Callable[[], Response]) -> Response:
    """`work`'s answer, or the kept one. Only good answers are kept: after a failure the same key may be tried again."""
    if sent.key is None:
        return work()
    key = _checked(sent.key)
    stored = services.idempotency.begin(caller.project_id, key, sent.fingerprint)
    if stored is not None:
        return _replayed(stored.fingerprint == sent.fingerprint, stored.status, stored.body)
    try:
        answer = work()
    except BaseException:
        services.idempotency.abandon(caller.project_id, key)
        raise
    services.idempotency.finish(caller.project_id, key, answer.status_code, bytes(answer.body))
    return answer


def _checked(key: str) -> str:
    if not 1 <= len(key) <= LONGEST_KEY or not key.isprintable():
        raise InvalidError(FieldProblem(FIELD, f"use 1 to {LONGEST_KEY} printable characters", "idempotency_key"))
    return key


def _replayed(same: bool, status: int | None, body: bytes | None) -> Response:
    if not same:
        raise InvalidError(
            FieldProblem(FIELD, "it was used for another request; use a new one", "idempotency_key_reused")
        )
    if status is None:
        raise ConflictError("the first request with this Idempotency-Key still runs", code="idempotency_key_in_use")
    return Response(body, status, {"Idempotency-Replayed": "true"}, "application/json")
