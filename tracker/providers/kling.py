"""Kling on a relay (`GET /kling/v1/videos/{family}/{id}`) and its own API (the same without `/kling`).

The family in the path must be the one that the task was submitted to: `kind`. Another one is answered with "not found".
Source: the provider's API pages, and the code of the public relays, which keep either its answer or a record of their own.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial

import orjson
from typing_extensions import override

from tracker.core.generation import Output
from tracker.core.observation import Observation
from tracker.providers import fields, questions
from tracker.providers.base import Account, Response, Subject
from tracker.providers.plain import Plain, told_of_family
from tracker.providers.relayed import Form, Node, innermost

PATHS = {
    "text2video": "/v1/videos/text2video",
    "image2video": "/v1/videos/image2video",
    "multi-image2video": "/v1/videos/multi-image2video",
    "video-extend": "/v1/videos/video-extend",
    "lip-sync": "/v1/videos/lip-sync",
    "effects": "/v1/videos/effects",
    "omni-video": "/v1/videos/omni-video",
    "image": "/v1/images/generations",
}
"""Endpoint families. A registration that names none is asked about as the first."""
FIRST = next(iter(PATHS))

_FILES = ("video", "image", "audio")

TOKEN_LIVES = 1800
"""Seconds: what the provider's own examples sign for."""
CLOCKS_DIFFER = 5
"""Seconds by which the provider's clock may be behind ours."""
TOKEN_STEP = 600
"""Seconds for which the same token is shown again, a third of its life: one for each question would cost more than the question."""


class Kling(Plain):
    """Answers come as the provider's envelope, bare, or inside a relay's record, which has words of its own. There is no batch query."""

    kinds = tuple(PATHS)

    @override
    def path(self, subject: Subject) -> str:
        family = PATHS.get(subject.kind or FIRST, PATHS[FIRST])
        return self._path.format(f"{family}/{questions.in_path(subject.task_id)}")

    @override
    def read(self, subject: Subject, response: Response) -> Observation:
        """A wrong family looks like a missing task, so the problem says which was asked; where we only guessed it, it proves nothing."""
        return told_of_family(super().read(subject, response), subject, FIRST)


class KlingOfficial(Kling):
    """Its key is an API key, or `ACCESS_KEY:SECRET_KEY`, with which short-lived tokens are signed."""

    @override
    def headers(self, account: Account) -> questions.Headers:
        access, colon, secret = (account.api_key or "").partition(":")
        if not colon:
            return super().headers(account)
        at = int(account.at // TOKEN_STEP) * TOKEN_STEP
        return super().headers(replace(account, api_key=_token(access, secret, at)))


@lru_cache(maxsize=1024)
def _token(access: str, secret: str, at: int) -> str:
    """A JSON web token (HS256) that is good from `at`, in seconds since 1970."""
    claims = {"iss": access, "exp": at + TOKEN_LIVES, "nbf": at - CLOCKS_DIFFER}
    signed = b".".join(_base64(orjson.dumps(part)) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
    return (signed + b"." + _base64(hmac.new(secret.encode(), signed, hashlib.sha256).digest())).decode()


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def _files(node: Node) -> Iterator[Output | None]:
    """From the provider's first form (`task_result`), its second (`outputs`), or the one `url` of a relay's answer."""
    result = fields.mapping(node.get("task_result"))
    for kind in _FILES:
        for one in fields.sequence(result.get(f"{kind}s")):
            yield fields.output(kind, one)
    for one in fields.sequence(node.get("outputs")):
        stated = fields.mapping(one).get("type")
        yield from (fields.output(kind, one) for kind in _FILES if kind == stated)
    yield fields.output("video", node.get("url"))


FORM = Form(
    partial(innermost, _files),
    statuses=("task_status", "status"),
    reasons=("task_status_msg", "fail_reason", "message"),
    codes=(),
    depth=4,
)
RELAY = Kling("kling", "https://yunwu.ai", "/kling{}", FORM)
OFFICIAL = KlingOfficial("kling-official", "https://api-singapore.klingai.com", "{}", FORM)
