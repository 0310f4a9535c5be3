"""Runway on a relay (`GET /runwayml/v1/tasks/{id}`) and its own API (the same without `/runwayml`).

Source: the provider's Python library and its pages on errors; relays show its own answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from tracker.core.generation import Output
from tracker.core.observation import Observation
from tracker.providers import fields, questions
from tracker.providers.base import Account, Question, Response, Subject
from tracker.providers.relayed import Form, Node, result_link

VERSION = ("X-Runway-Version", "2024-11-06")
"""Without it the provider refuses; it is the version that its library sends."""


class Runway:
    """The relay's form: states PENDING, THROTTLED (it waits for its turn), RUNNING with a progress, SUCCEEDED, FAILED, CANCELLED."""

    name = "runway"
    default_base_url = "https://yunwu.ai"
    kinds: tuple[str, ...] = ()
    batch_size = 0
    _prefix: ClassVar[str] = "/runwayml"

    def question(self, account: Account, subject: Subject) -> Question:
        """One task, whatever it makes: there is one path for all."""
        path = f"{self._prefix}/v1/tasks/{questions.in_path(subject.task_id)}"
        return questions.get(account, path, questions.bearer(account, VERSION))

    def read(self, subject: Subject, response: Response) -> Observation:
        """The observation of one task; an answer about another one is a problem."""
        return FORM.read(subject, response)

    def batch_question(self, account: Account, subjects: Sequence[Subject]) -> Question:
        """Never called: `batch_size` is 0."""
        raise NotImplementedError("runway has no batch query")

    def read_batch(self, subjects: Sequence[Subject], response: Response) -> Mapping[str, Observation] | None:  # noqa: ARG002
        """There is no batch path, whatever came."""
        return None


class RunwayOfficial(Runway):
    """The provider's own form."""

    name = "runway-official"
    default_base_url = "https://api.dev.runwayml.com"
    _prefix = ""


def _outputs(found: Sequence[Node]) -> tuple[Output, ...]:
    for node in found:
        made = fields.numbered(_files(node))
        if made:
            return made
    linked = result_link(found)
    return () if linked is None else (linked,)


def _files(node: Node) -> Iterator[Output | None]:
    """`output` holds addresses, and what they are shows in their endings alone."""
    for address in fields.sequence(node.get("output")):
        yield fields.output(fields.kind_of(address) or "video", address)


FORM = Form(_outputs, statuses=("status",), reasons=("failure", "fail_reason"), codes=("failureCode",))
