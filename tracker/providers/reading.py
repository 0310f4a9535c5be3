"""From an HTTP response to JSON, or to the problem that it is. Knows HTTP and the relays' error forms; never a provider's own fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from tracker.core.observation import Problem, ProblemCode
from tracker.core.times import retry_after
from tracker.providers.base import Response
from tracker.providers.fields import clean, mapping, text
from tracker.providers.words import NOT_FOUND, normal

LONGEST_QUOTE = 200
"""Characters of a body that a message quotes."""

_FAILURES = {
    "timeout": (ProblemCode.TIMEOUT, "no complete answer in time"),
    "too_large": (ProblemCode.TOO_LARGE, "the answer is too large"),
    "protocol": (ProblemCode.UNREADABLE, "the answer broke off or was not HTTP"),
    "dns": (ProblemCode.CONNECTION, "the host name was not found"),
    "address": (ProblemCode.CONNECTION, "the address may not be reached"),
    "connect": (ProblemCode.CONNECTION, "no connection"),
    "tls": (ProblemCode.CONNECTION, "no secure connection"),
}
_QUOTA_CODES = frozenset(
    {"quota_not_enough", "insufficient_user_quota", "insufficient_quota", "insufficient_balance", "insufficient_credits",
     "budget_exhausted", "1100", "1101", "1102"}
)  # fmt: skip
"""Codes that mean "out of credit". The numbers are Kling's: it sends them with 429, and asking again never helps."""
_QUOTA_PHRASES = (
    "quota is not enough", "insufficient quota", "insufficient balance", "insufficient credit", "not enough credit",
    "余额不足", "额度不足", "额度已用尽",
)  # fmt: skip
_NO_SUCH_METHOD = "1202"
"""Kling's code for a path that it does not have, as new-api's "Invalid URL (": the base URL is wrong, and the task may well exist."""
_REFUSALS = (401, 402, 403, 429)
"""Statuses under which a relay says that the account has run dry (new-api does so even under 401)."""


def answer(response: Response) -> Any | Problem:
    """The JSON of a successful answer (never None), or what is wrong. The content type is not trusted: only the body counts."""
    if response.failure is not None:
        code, message = _FAILURES.get(response.failure, (ProblemCode.CONNECTION, "no answer"))
        detail = clean(response.detail, LONGEST_QUOTE)
        return Problem(code, f"{message} ({response.failure}){': ' + detail if detail else ''}")
    body = parsed(response.body)
    if response.status == 200 and body is not None:  # noqa: PLR2004 - HTTP's own numbers
        return body
    if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's own numbers
        return _refused(response, body)
    if response.body.strip() in (b"", b"null"):
        return Problem(ProblemCode.NOT_FOUND, f"an empty answer (HTTP {response.status})")
    if body is None:
        return Problem(ProblemCode.UNREADABLE, f"the answer is {_form(response.body)}: {_quote(response.body)}")
    return body


def complaint(body: Any, lacks: str = "status") -> Problem:
    """What an answer with HTTP 2xx means that `lacks` a status, or an id: some relays report their errors so."""
    meaning = _meaning(body)
    missing = f"the answer has no {lacks}: " if meaning is ProblemCode.UNREADABLE else "the provider answers "
    try:
        said = _quote(orjson.dumps(body))
    except TypeError:
        said = "it is nested too deeply to be quoted"  # what the parser took, the writer refuses from 254 levels on
    return Problem(meaning, missing + said)


def is_html(body: bytes) -> bool:
    """Whether it is a web page: what a gateway shows when it is down, and a relay's dashboard for any path it does not know."""
    return body.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<"


def parsed(body: bytes) -> Any | None:
    """The JSON of a body, whatever its HTTP status; None where it is none."""
    try:
        return orjson.loads(body[3:] if body.startswith(b"\xef\xbb\xbf") else body)
    except ValueError:
        return None


def _refused(response: Response, body: Any) -> Problem:
    status, said = response.status, _quote(response.body)
    message = f"HTTP {status}{': ' + said if said else ''}"
    meaning = _meaning(body)
    wait = retry_after(response.headers.get("retry-after"), response.at)
    if status == 402 or (status in _REFUSALS and meaning is ProblemCode.OUT_OF_QUOTA):  # noqa: PLR2004
        return Problem(ProblemCode.OUT_OF_QUOTA, message)
    if status in (401, 403):
        return Problem(ProblemCode.UNAUTHORIZED, message)
    if status == 429:  # noqa: PLR2004
        return Problem(ProblemCode.RATE_LIMITED, message, wait)
    if _is_missing(status, body, meaning):
        return Problem(ProblemCode.NOT_FOUND, message)
    return Problem(ProblemCode.HTTP_ERROR, message, wait)


def _is_missing(status: int, body: Any, meaning: ProblemCode) -> bool:
    if status == 404:  # noqa: PLR2004
        return not any(said == _NO_SUCH_METHOD or said.lower().startswith("invalid url (") for said in _said(body))
    return 400 <= status < 500 and meaning is ProblemCode.NOT_FOUND  # noqa: PLR2004


def _meaning(body: Any) -> ProblemCode:
    """What an error body says, whatever its status: not found, out of quota, or nothing that we know (unreadable)."""
    words = list(_said(body))
    if any(normal(said) in NOT_FOUND for said in words):
        return ProblemCode.NOT_FOUND
    if any(normal(said) in _QUOTA_CODES or any(phrase in said.lower() for phrase in _QUOTA_PHRASES) for said in words):
        return ProblemCode.OUT_OF_QUOTA
    return ProblemCode.UNREADABLE


def _said(body: Any) -> Iterator[str]:
    """The codes and sentences of an error body, in all the shapes that relays use."""
    outer = mapping(body)
    for node in (outer, mapping(outer.get("error")), mapping(outer.get("detail"))):
        for name in ("code", "type", "message", "description", "reason", "error", "detail"):
            said = text(node.get(name))
            if said is not None:
                yield said


def _form(body: bytes) -> str:
    return (
        "a web page, not JSON"
        if is_html(body)
        else "not complete JSON"
        if body.lstrip()[:1] in (b"{", b"[")
        else "not JSON"
    )


def _quote(body: bytes) -> str:
    return clean(body[: LONGEST_QUOTE * 8].decode("utf-8", "replace"), LONGEST_QUOTE)
