"""Google's Veo: `GET /v1beta/{operation}`, where the task id is the operation's name, slashes and all. Files are kept for two days.

An operation has no words for its state, only `done`; ours stand in their place. One that is done without a film and names filters was
moderated. Source: the provider's pages, and what users of gateways found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from typing_extensions import override

from tracker.core.generation import Output
from tracker.core.observation import Observation, Problem, ProblemCode
from tracker.providers import fields, questions
from tracker.providers.base import Account, Response, Subject
from tracker.providers.plain import Plain
from tracker.providers.relayed import Form, Node

_RUNNING, _DONE, _FAILED = "running", "done", "failed"


class Veo(Plain):
    """The key goes into a header of its own, for files too."""

    @override
    def path(self, subject: Subject) -> str:
        name = subject.task_id
        # A name with dots for a segment must not climb out of its place.
        return self._path.format(quote(name, safe="" if {".", ".."} & set(name.split("/")) else "/"))

    @override
    def headers(self, account: Account) -> questions.Headers:
        shown = () if account.api_key is None else (("x-goog-api-key", account.api_key),)
        return questions.bearer(replace(account, api_key=None), *shown)

    @override
    def read(self, subject: Subject, response: Response) -> Observation:
        """A key that is not valid is answered with 400."""
        seen = super().read(subject, response)
        if isinstance(seen, Problem) and response.status == 400 and b"API_KEY_INVALID" in response.body:  # noqa: PLR2004
            return replace(seen, code=ProblemCode.UNAUTHORIZED)
        return seen

    def download_headers(self, account: Account, url: str) -> questions.Headers:  # noqa: ARG002 - for whatever the host keeps
        """The key."""
        return () if account.api_key is None else (("x-goog-api-key", account.api_key),)


class _Form(Form):
    @override
    def read_body(self, task_id: str, body: Any) -> Observation:
        operation = fields.mapping(body)
        known = isinstance(operation.get("name"), str) or isinstance(operation.get("done"), bool)
        return super().read_body(task_id, _recorded(operation) if known else body)


def _recorded(operation: Node) -> Node:
    """The operation as other providers would put it."""
    record = {"id": operation.get("name")} | dict(operation)
    error, made = fields.mapping(operation.get("error")), _made(operation)
    if operation.get("done") is not True:
        return record | {"state": _RUNNING}
    if error:
        return record | {"state": _FAILED, "fail_reason": error.get("message"), "failure_code": error.get("status")}
    reasons = fields.sequence(made.get("raiMediaFilteredReasons"))
    if not any(_links(made)) and (reasons or made.get("raiMediaFilteredCount")):
        said = " ".join(reason for reason in reasons if isinstance(reason, str))
        return record | {"state": _FAILED, "fail_reason": said, "failure_code": "content_filter"}
    return record | {"state": _DONE}


def _made(operation: Node) -> Node:
    return fields.mapping(fields.mapping(operation.get("response")).get("generateVideoResponse"))


def _links(made: Node) -> Iterator[str | None]:
    samples = (
        fields.mapping(fields.mapping(one).get("video")) for one in fields.sequence(made.get("generatedSamples"))
    )
    return (fields.url(video.get("uri")) for video in samples)


def _outputs(found: Sequence[Node]) -> tuple[Output, ...]:
    films = (fields.output("video", link) for node in found for link in _links(_made(node)))
    # The links end in `:download`, which tells nothing.
    return fields.numbered(
        None if film is None else replace(film, media_type=film.media_type or "video/mp4") for film in films
    )


VEO = Veo("veo", "https://generativelanguage.googleapis.com", "/v1beta/{}", _Form(_outputs))
