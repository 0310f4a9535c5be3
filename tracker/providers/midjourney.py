"""Midjourney through a proxy: `GET /mj/task/{id}/fetch`, and `POST /mj/task/list-by-condition` for many at once.

A task that waits for a choice (`MODAL`) goes on being asked about; a proxy that knows no such task answers with nothing, or with `null`.
Source: the code of the two public proxies and of the gateways in front of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson
from typing_extensions import override

from tracker.core.generation import Output
from tracker.core.observation import Observation
from tracker.providers import fields, questions
from tracker.providers.base import Account, Question, Response, Subject
from tracker.providers.plain import Plain
from tracker.providers.relayed import Form, Node, values


class Midjourney(Plain):
    """The key is shown both ways: gateways want a bearer, a proxy of one's own the header `mj-api-secret`."""

    batch_size = 50

    @override
    def batch_question(self, account: Account, subjects: Sequence[Subject]) -> Question:
        """Many tasks in one request. Those that are not known are missing from the answer."""
        body = orjson.dumps({"ids": [subject.task_id for subject in subjects]})
        return Question(
            "POST", f"{account.base_url.rstrip('/')}/mj/task/list-by-condition", self.headers(account), body
        )

    @override
    def read_batch(self, subjects: Sequence[Subject], response: Response) -> Mapping[str, Observation] | None:
        """An array of tasks."""
        return self._form.read_batch(subjects, response)

    @override
    def headers(self, account: Account) -> questions.Headers:
        """Both ways."""
        own = () if account.api_key is None else (("mj-api-secret", account.api_key),)
        return questions.bearer(account, *own)


def _outputs(found: Sequence[Node]) -> tuple[Output, ...]:
    return fields.numbered(
        fields.output(kind, value)
        for name, kind in (("videoUrl", "video"), ("imageUrl", "image"))
        for value in values(found, name)
    )


FORM = Form(_outputs, statuses=("status",), reasons=("failReason", "fail_reason"), started="startTime")
MIDJOURNEY = Midjourney("midjourney", "https://yunwu.ai", "/mj/task/{}/fetch", FORM)
