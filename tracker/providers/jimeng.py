"""Jimeng (Volcano Engine): `POST /?Action=CVSync2AsyncGetResult&Version=2022-08-31`, with the task and its model in the body.

A task is found only with the model that it was submitted with, the `req_key`: that is its `kind`. An answer's `code` tells whether it
is one (10000), and only then the task's status counts. The link of a film is good for an hour, of a picture for a day; tasks are kept for
twelve hours. Source: the provider's pages, as public code quotes them.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import orjson
from typing_extensions import override

from tracker.core.generation import ErrorCode, Output
from tracker.core.observation import Observation, Problem, ProblemCode, Seen
from tracker.providers import fields, questions, reading
from tracker.providers.base import Account, Question, Response, Subject
from tracker.providers.plain import Plain, told_of_family
from tracker.providers.relayed import Form, Node

GUESSED = "jimeng_ti2v_v30_pro"
"""The model that is asked for where no kind was given."""
_PATH = "/?Action=CVSync2AsyncGetResult&Version=2022-08-31"
_REGION, _SERVICE = "cn-north-1", "cv"
_SIGNED = "content-type;host;x-content-sha256;x-date"
_WELL, _DENIED = 10000, 50400
_MODERATED = {50411, 50412, 50413, 50511, 50512, 50516, 50517, 50518, 50519}
"""What was written, shown or made did not pass: the task is over, and may be submitted anew."""
_FAILED = {50520, 50521, 50522}
"""Whoever judges that could not: over as well."""
_OF_THE_ACCOUNT = {
    _DENIED: ProblemCode.UNAUTHORIZED,
    50429: ProblemCode.RATE_LIMITED,
    50430: ProblemCode.RATE_LIMITED,
}


class Jimeng(Plain):
    """Its key is `ACCESS_KEY:SECRET_KEY`, with which every request is signed; one without a colon is a relay's and shown as bearer.

    Any model may be a kind: there are new ones every few weeks.
    """

    @override
    def question(self, account: Account, subject: Subject) -> Question:
        asked = {"req_key": subject.kind or GUESSED, "task_id": subject.task_id, "req_json": '{"return_url":true}'}
        body, url = orjson.dumps(asked), account.base_url.rstrip("/") + _PATH
        access, *secret = re.split("[:|]", account.api_key or "", maxsplit=1)  # gateways write `ACCESS_KEY|SECRET_KEY`
        if not secret:
            return Question("POST", url, self.headers(account), body)
        shown = _signed(url, body, access, secret[0], datetime.fromtimestamp(account.at, UTC))
        return Question(
            "POST", url, (("Accept", "application/json"), ("Content-Type", "application/json"), *shown), body
        )

    @override
    def read(self, subject: Subject, response: Response) -> Observation:
        """What went wrong is told by numbers, under various HTTP statuses. A wrong model looks like a missing task, or like a wrong key."""
        body = fields.mapping(reading.parsed(response.body))
        number, message = body.get("code"), fields.text(body.get("message"))
        code = number if isinstance(number, int) else _WELL
        over = fields.mapping(body.get("data")).get("status") == "done"
        if code in _MODERATED or code in _FAILED or (over and code != _WELL and code not in _OF_THE_ACCOUNT):
            return _failed(self._form, subject.task_id, code, message)
        seen = super().read(subject, response)
        if not isinstance(seen, Problem):
            return seen
        wrong = fields.mapping(fields.mapping(body.get("ResponseMetadata")).get("Error"))
        if wrong:
            return _refused_at_the_gate(seen, response.status, wrong)
        if code == _DENIED and subject.kind is None:
            seen = replace(seen, code=ProblemCode.NOT_FOUND)  # also said of models that the account has not opened
        elif code in _OF_THE_ACCOUNT:
            return replace(seen, code=_OF_THE_ACCOUNT[code])
        elif code != _WELL and response.status in (200, 400):
            return replace(seen, code=ProblemCode.UNKNOWN_STATUS)
        return told_of_family(seen, subject, GUESSED)


def _failed(form: Form, task_id: str, code: int, message: str | None) -> Observation:
    """A task that ended with this number."""
    told = {"task_id": task_id, "status": "failed", "fail_reason": message, "failure_code": str(code)}
    seen = form.read_body(task_id, {"code": "failed", "data": told})
    if isinstance(seen, Seen) and seen.error is not None and code in _MODERATED:
        seen.error = replace(seen.error, code=ErrorCode.MODERATED)
    return seen


def _refused_at_the_gate(seen: Problem, status: int, wrong: Node) -> Problem:
    """What the provider's gateway says, before anybody has looked for a task."""
    said = (fields.text(wrong.get(name)) for name in ("Code", "Message"))
    told = ": ".join((f"HTTP {status}", *filter(None, said)))
    code = ProblemCode.HTTP_ERROR if seen.code is ProblemCode.NOT_FOUND else seen.code
    return replace(seen, code=code, message=fields.clean(told, reading.LONGEST_QUOTE))


def _signed(url: str, body: bytes, access: str, secret: str, at: datetime) -> questions.Headers:
    """The provider's signature, a relative of AWS's fourth: over the address, the day and second, and a digest of the body."""
    parts, digest = urlsplit(url), hashlib.sha256(body).hexdigest()
    host = parts.netloc.removesuffix({"https": ":443", "http": ":80"}.get(parts.scheme, ""))  # as it is sent
    second = at.strftime("%Y%m%dT%H%M%SZ")
    scope = f"{second[:8]}/{_REGION}/{_SERVICE}/request"
    told = ("content-type:application/json", f"host:{host}", f"x-content-sha256:{digest}", f"x-date:{second}")
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
        if not isinstance(
            outer.get("code", _WELL), int
        ):  # a relay's record of the task, with this provider's answer inside
            return super().read_body(task_id, body)
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


JIMENG = Jimeng("jimeng", "https://visual.volcengineapi.com", _PATH, _Form(_outputs, statuses=("status",), depth=4))
