"""MiniMax (Hailuo): `GET /v1/query/video_generation?task_id=`, whose answer names a file; `GET /v1/files/retrieve` then gives its link.

Its second form, `GET /v2/query/video_generation/{id}`, is `kind` v2 and has the link at once. Errors of the first come with HTTP 200, in
`base_resp`. Source: the provider's pages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from typing_extensions import override

from tracker.core.generation import Output
from tracker.core.observation import Observation, Problem, ProblemCode, Seen
from tracker.providers import fields, questions, reading
from tracker.providers.base import Account, Question, Response, Subject
from tracker.providers.plain import Plain
from tracker.providers.relayed import Form, Node

FIRST, SECOND = "v1", "v2"
_CODES = {
    1002: ProblemCode.RATE_LIMITED,
    1004: ProblemCode.UNAUTHORIZED,
    2049: ProblemCode.UNAUTHORIZED,
    1008: ProblemCode.OUT_OF_QUOTA,
}
"""`base_resp.status_code`, where it is about the account. 0 is no error."""
_SENSITIVE = {1026, 1027}
"""The prompt or the film was refused."""


class MiniMax(Plain):
    """A completed task of the first form has no link yet: it is asked for with a second question."""

    kinds: tuple[str, ...] = (FIRST, SECOND)

    @override
    def path(self, subject: Subject) -> str:
        if subject.kind == SECOND:
            return f"/v2/query/video_generation/{questions.in_path(subject.task_id)}"
        return super().path(subject)

    @override
    def read(self, subject: Subject, response: Response) -> Observation:
        """HTTP 200 is no success yet."""
        refused = _refusal(response)
        return refused if refused is not None else super().read(subject, response)

    def second_question(self, account: Account, seen: Seen) -> Question | None:
        """For the link of the file that the answer names."""
        file_id = fields.text(fields.mapping(seen.raw).get("file_id"))
        if file_id is None:
            return None
        return questions.get(account, f"/v1/files/retrieve?file_id={quote(file_id, safe='')}", self.headers(account))

    def read_second(self, seen: Seen, response: Response) -> Observation:
        """The completed task with its file; whatever keeps the link from us is a problem, and all is asked again."""
        body = reading.answer(response)
        if isinstance(body, Problem):
            # That the file is missing says nothing of the task.
            return replace(body, code=ProblemCode.NO_OUTPUT) if body.code is ProblemCode.NOT_FOUND else body
        refused = _refusal(response)
        if refused is not None:
            return refused
        told = fields.mapping(seen.raw)
        size = {"width": told.get("video_width"), "height": told.get("video_height")}
        film = fields.output(
            "video", {"url": fields.mapping(fields.mapping(body).get("file")).get("download_url"), **size}
        )
        return replace(seen, outputs=() if film is None else (film,))


def _refusal(response: Response) -> Problem | None:
    """What an answer with HTTP 200 says against the account."""
    body = reading.answer(response)
    number, message = _said({} if isinstance(body, Problem) else body)
    code = _CODES.get(number)
    if code is None:
        return None
    return Problem(code, f"the provider answers {number}: {fields.clean(fields.text(message) or '', 200)}")


def _said(body: Any) -> tuple[int, object]:
    """`base_resp`: the number, 0 where there is none, and the words."""
    said = fields.mapping(fields.mapping(body).get("base_resp"))
    number = said.get("status_code")
    return number if isinstance(number, int) else 0, said.get("status_msg")


class _Form(Form):
    @override
    def read_body(self, task_id: str, body: Any) -> Observation:
        outer = fields.mapping(body)
        task = outer.get("task")
        if isinstance(task, dict):  # the second form
            return super().read_body(task_id, task)
        number, message = _said(outer)
        if number in _SENSITIVE:
            refused = {"task_id": task_id, "status": "Fail", "fail_reason": message, "failure_code": "content_filter"}
            return super().read_body(task_id, refused)
        return super().read_body(task_id, {**outer, "fail_reason": message if number else None} if outer else body)


def _outputs(found: Sequence[Node]) -> tuple[Output, ...]:
    content = next((fields.mapping(node.get("content")) for node in found if node.get("content")), {})
    film = fields.output("video", content.get("url"))
    return () if film is None else (film,)


MINIMAX = MiniMax(
    "minimax", "https://api.minimax.io", "/v1/query/video_generation?task_id={}", _Form(_outputs, statuses=("status",))
)
