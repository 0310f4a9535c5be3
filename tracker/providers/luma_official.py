"""Luma's own API: `GET /dream-machine/v1/generations/{id}`. Its answers are the relay's with `assets` in place of the outputs.

Source: the provider's Python library and OpenAPI description. Its list has no filter by id, so there is no batch query.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tracker.core.observation import Observation
from tracker.providers import luma, questions
from tracker.providers.base import Account, Question, Response, Subject


class LumaOfficial:
    """The provider's own form: states queued, dreaming, completed, failed; the reason in `failure_reason`."""

    name = "luma-official"
    default_base_url = "https://api.lumalabs.ai"
    kinds: tuple[str, ...] = ()
    batch_size = 0

    def question(self, account: Account, subject: Subject) -> Question:
        """One generation."""
        path = f"/dream-machine/v1/generations/{questions.in_path(subject.task_id)}"
        return questions.get(account, path, questions.bearer(account))

    def read(self, subject: Subject, response: Response) -> Observation:
        """The observation of one generation; an answer about another one is a problem."""
        return luma.FORM.read(subject, response)

    def batch_question(self, account: Account, subjects: Sequence[Subject]) -> Question:
        """Never called: `batch_size` is 0."""
        raise NotImplementedError("luma-official has no batch query")

    def read_batch(self, subjects: Sequence[Subject], response: Response) -> Mapping[str, Observation] | None:  # noqa: ARG002
        """There is no batch path, whatever came."""
        return None
