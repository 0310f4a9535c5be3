"""A provider that is asked about one task at a time, with its id in the address, and answers in one form: nearly all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tracker.core.observation import Observation, Problem, ProblemCode
from tracker.providers import questions
from tracker.providers.base import Account, Question, Response, Subject
from tracker.providers.relayed import Form


class Plain:
    """`path` holds `{}` where the id stands; `more` headers go with every question."""

    kinds: tuple[str, ...] = ()
    batch_size = 0

    def __init__(self, name: str, default_base_url: str, path: str, form: Form, *more: tuple[str, str]) -> None:
        self.name, self.default_base_url = name, default_base_url
        self._path, self._form, self._more = path, form, more

    def question(self, account: Account, subject: Subject) -> Question:
        """One task."""
        return questions.get(account, self.path(subject), self.headers(account))

    def read(self, subject: Subject, response: Response) -> Observation:
        """The observation of one task; an answer about another one is a problem."""
        return self._form.read(subject, response)

    def batch_question(self, account: Account, subjects: Sequence[Subject]) -> Question:
        """Never called: `batch_size` is 0."""
        raise NotImplementedError(f"{self.name} has no batch query")

    def read_batch(self, subjects: Sequence[Subject], response: Response) -> Mapping[str, Observation] | None:  # noqa: ARG002
        """There is no batch path, whatever came."""
        return None

    def path(self, subject: Subject) -> str:
        """The address behind the host."""
        return self._path.format(questions.in_path(subject.task_id))

    def headers(self, account: Account) -> questions.Headers:
        """The key as bearer, and what else the provider wants to see."""
        return questions.bearer(account, *self._more)


def told_of_family(seen: Observation, subject: Subject, guessed: str) -> Observation:
    """A missing task, with the kind that it was asked for as, which may be wrong; where that was only `guessed`, it proves nothing."""
    if not (isinstance(seen, Problem) and seen.code is ProblemCode.NOT_FOUND):
        return seen
    if subject.kind is None:
        told = f"{seen.message} (no kind was given, so it was asked for as {guessed!r}: give the one that it was submitted to)"
        return replace(seen, code=ProblemCode.UNKNOWN_STATUS, message=told)
    return replace(seen, message=f"{seen.message} (asked for as kind {subject.kind!r}: is it that?)")
