"""Jimeng (Volcano Engine): `POST /?Action=CVSync2AsyncGetResult&Version=2022-08-31`, with the task and its model in the body.

A task is found only with the model that it was submitted with, the `req_key`: that is its `kind`. An answer's `code` tells whether it
is one (10000), and only then the task's status counts. The link of a film is good for an hour, of a picture for a day; tasks are kept for
twelve hours. Source: the provider's pages, as public code quotes them.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import orjson
from typing_extensions import override

from tracker.core.generation import Output
from tracker.core.observation import Observation, Problem, ProblemCode, Seen
from tracker.providers import fields, questions, reading
from tracker.providers.base import Account, Question, Response, Subject
from tracker.providers.plain import Plain, told_of_family
from tracker.providers.relayed import Form, Node

KINDS = (
    "jimeng_ti2v_v30_pro",
    "jimeng_t2v_v30", "jimeng_t2v_v30_1080p", "jimeng_i2v_first_v30", "jimeng_i2v_first_v30_1080",
    "jimeng_i2v_first_tail_v30", "jimeng_i2v_first_tail_v30_1080", "jimeng_i2v_recamera_v30",
    "jimeng_vgfm_t2v_l20", "jimeng_vgfm_i2v_l20",
    "jimeng_t2i_v30", "jimeng_t2i_v31", "jimeng_t2i_v40", "jimeng_seedream46_cvtob",
)  # fmt: skip
"""Models, by the name that the submit was made with. The first is asked for where none is given."""
_PATH = "/?Action=CVSync2AsyncGetResult&Version=2022-08-31"
_REGION, _SERVICE = "cn-north-1", "cv"
_SIGNED = "content-type;host;x-content-sha256;x-date"
_WELL = 10000
_MODERATED = {50411, 50412, 50413, 50511, 50512, 50516, 50517, 50518, 50519}
"""What was written, shown or made did not pass: the task is over."""
_OF_THE_ACCOUNT = {
    50400: ProblemCode.UNAUTHORIZED,
    50429: ProblemCode.RATE_LIMITED,
    50430: ProblemCode.RATE_LIMITED,
}


class Jimeng(Plain):
    """Its key is `ACCESS_KEY:SECRET_KEY`, with which every request is signed; one without a colon is a relay's and shown as bearer."""

    kinds: tuple[str, ...] = KINDS

    @override
    def question(self, account: Account, subject: Subject) -> Question:
        asked = {"req_key": subject.kind or KINDS[0], "task_id": subject.task_id, "req_json": '{"return_url":true}'}
        body, url = orjson.dumps(asked), account.base_url.rstrip("/") + _PATH
        access, colon, secret = (account.api_key or "").partition(":")
        if not colon:
            return Question("POST", url, self.headers(account), body)
        shown = _signed(url, body, access, secret, datetime.fromtimestamp(account.at, UTC))
        return Question("POST", url, questions.bearer(replace(account, api_key=None), *shown), body)

    @override
    def read(self, subject: Subject, response: Response) -> Observation:
        """What went wrong is told by numbers, under various HTTP statuses. A wrong model looks like a missing task."""
        body = fields.mapping(reading.parsed(response.body))
        number, message = body.get("code"), fields.text(body.get("message"))
        code = number if isinstance(number, int) else 0
        if code in _MODERATED:
            refused = {"status": "failed", "fail_reason": message, "failure_code": str(code)}
            return self._form.read_body(subject.task_id, {"data": refused})
        seen = super().read(subject, response)
        if isinstance(seen, Problem) and code in _OF_THE_ACCOUNT:
            return replace(seen, code=_OF_THE_ACCOUNT[code])
        wrong = fields.mapping(fields.mapping(body.get("ResponseMetadata")).get("Error"))
        if isinstance(seen, Problem) and wrong:
            told = f"HTTP {response.status}: {wrong.get('Code')}: {wrong.get('Message')}"
            return replace(seen, message=fields.clean(told, reading.LONGEST_QUOTE))
        return told_of_family(seen, subject, KINDS[0])


def _signed(url: str, body: bytes, access: str, secret: str, at: datetime) -> questions.Headers:
    """The provider's signature, a relative of AWS's fourth: over the address, the day and second, and a digest of the body."""
    parts, digest = urlsplit(url), hashlib.sha256(body).hexdigest()
    second = at.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{second[:8]}/{_REGION}/{_SERVICE}/request"
    told = ("content-type:application/json", f"host:{parts.netloc}", f"x-content-sha256:{digest}", f"x-date:{second}")
    request = "\n".join(("POST", parts.path, parts.query, *told, "", _SIGNED, digest))
    key = secret.encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    summary = "\n".join(("HMAC-SHA256", second, scope, hashlib.sha256(request.encode()).hexdigest()))
    shown = f"HMAC-SHA256 Credential={access}/{scope}, SignedHeaders={_SIGNED}, Signature={_hmac(key, summary).hex()}"
    return (("X-Date", second), ("X-Content-Sha256", digest), ("Authorization", shown))


def _hmac(key: bytes, said: str) -> bytes:
    return hmac.new(key, said.encode(), hashlib.sha256).digest()


class _Form(Form):
    @override
    def read_body(self, task_id: str, body: Any) -> Observation:
        outer = fields.mapping(body)
        task = fields.mapping(outer.get("data"))
        if "status" not in task or outer.get("code", _WELL) != _WELL:
            return reading.complaint(body)
        seen = super().read_body(task_id, {"task_id": task_id, **task})
        if isinstance(seen, Seen):
            seen.raw = body
        return seen


def _outputs(found: Sequence[Node]) -> tuple[Output, ...]:
    made = (("video", node.get("video_url")) for node in found)
    pictures = (("image", link) for node in found for link in fields.sequence(node.get("image_urls")))
    return fields.numbered(fields.output(kind, link) for kind, link in (*made, *pictures))


JIMENG = Jimeng("jimeng", "https://visual.volcengineapi.com", _PATH, _Form(_outputs, statuses=("status",)))
