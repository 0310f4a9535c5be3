"""A provider that a file describes: where it is asked, and where in its answers our words stand, as JMESPath expressions.

docs/PROVIDERS.md shows such a file, field by field. What a file does not say follows the rules of all providers: the same table of status
words, the same reading of errors, and never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Annotated, Any, Literal, NoReturn, Self

import jmespath
from jmespath.exceptions import JMESPathError
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tracker.core.generation import KINDS, Output, State
from tracker.core.lifecycle import FINAL
from tracker.core.observation import Observation, Problem, ProblemCode, Seen
from tracker.core.times import provider_time
from tracker.providers import fields, questions, reading, words
from tracker.providers.base import Account, Question, Response, Subject
from tracker.settings import HttpUrl

MOST_FILES = 1000
"""Of one task; more is a mistake of the expression or of the provider."""
_PROVIDERS_STATES = (State.QUEUED, State.PROCESSING, State.COMPLETED, State.FAILED, State.CANCELLED)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_OURS = frozenset({"host", "content-length", "transfer-encoding", "connection", "expect", "te", "trailer", "upgrade"})
_STUMBLES = (JMESPathError, ArithmeticError, LookupError, TypeError, ValueError, RecursionError)
"""What an expression may meet in an answer of another shape."""


@dataclass(frozen=True, slots=True)
class Expression:
    """Where something stands in an answer."""

    text: str
    compiled: Any

    def of(self, body: object) -> object:
        """What stands there; None where there is nothing, or nothing that the expression can be applied to."""
        try:
            return self.compiled.search(body)
        except _STUMBLES:
            return None


def _expression(value: object) -> Expression:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("write a JMESPath expression, such as data.status")
    try:
        return Expression(value, jmespath.compile(value))
    except JMESPathError as wrong:
        raise ValueError(f"{value!r} is not a JMESPath expression ({str(wrong).splitlines()[0]})") from None


def _template(value: str, known: tuple[str, ...]) -> set[str]:
    """The names in braces. Raises ValueError for one that is not known, or for a brace alone."""
    try:
        names = {name for _, name, form, conversion in Formatter().parse(value) if name is not None}
        plain = all(not form and not conversion for _, _, form, conversion in Formatter().parse(value))
    except ValueError as wrong:
        raise ValueError(f"{value!r}: {wrong}; write a brace as {{{{ or }}}}") from None
    if not plain or names - set(known):
        raise ValueError(
            f"{value!r} may hold {' and '.join(f'{{{name}}}' for name in known)} in braces and nothing else"
        )
    return names


Where = Annotated[Expression, BeforeValidator(_expression)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)


class _Answer(_Part):
    """Where the task's own fields stand in an answer. `progress` counts up to `progress_whole`, 1 for fractions."""

    status: Where
    id: Where | None = None
    progress: Where | None = None
    progress_whole: Literal[1, 100] = 100
    reason: Where | None = None
    code: Where | None = None
    started_at: Where | None = None


class _Files(_Part):
    """Files of one kind: `each` gives one or many, and the rest is looked for within each of these."""

    each: Where
    kind: Literal[KINDS] | None = None  # type: ignore[valid-type]
    url: Where | None = None
    width: Where | None = None
    height: Where | None = None
    duration: Where | None = None
    media_type: Where | None = None


class Description(_Part):
    """What a file holds."""

    base_url: HttpUrl
    path: str
    kinds: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], ...] = ()
    authorization: str = "Bearer {key}"
    headers: Mapping[str, str] = {}
    answer: _Answer
    states: Mapping[Literal[_PROVIDERS_STATES], tuple[str, ...]] = {}  # type: ignore[valid-type]
    outputs: Annotated[tuple[_Files, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.path.startswith("/") or any(c.isspace() for c in self.path):
            raise ValueError("path: begin it with a slash, and write blanks as %20")
        named = _template(self.path, ("id", "kind"))
        if "id" not in named:
            raise ValueError("path: it must hold {id}, where the task's id stands")
        if ("kind" in named) != bool(self.kinds):
            raise ValueError("kinds: name the families that {kind} in the path stands for, and only then")
        for name, value in {"authorization": self.authorization, **self.headers}.items():
            if not _HEADER.fullmatch(name) or name.lower() in _OURS:
                raise ValueError(f"headers: {name!r} is not a header that may be set")
            if not value.isascii() or not value.isprintable():
                raise ValueError(f"headers: the value of {name!r} must be plain ASCII on one line")
            _template(value, ("key",))
        self.words()
        return self

    def words(self) -> dict[str, State]:
        """The file's own status words. Raises ValueError for one that means two states."""
        found: dict[str, State] = {}
        for state, said in self.states.items():
            for word in map(words.normal, said):
                if found.setdefault(word, state) != state:
                    raise ValueError(f"states: {word!r} is in both {found[word]} and {state}")
        return found


class Described:
    """A provider with one question for each task, read by the expressions of its description."""

    batch_size = 0

    def __init__(self, name: str, description: Description) -> None:
        self.name, self.default_base_url, self.kinds = name, description.base_url, description.kinds
        self.path_template = description.path
        self._description, self._words = description, description.words()

    def question(self, account: Account, subject: Subject) -> Question:
        """One task, asked for as its kind, or as the first one."""
        kind = subject.kind or (self.kinds[0] if self.kinds else "")
        path = self.path_template.format(id=questions.in_path(subject.task_id), kind=questions.in_path(kind))
        return questions.get(account, path, self._headers(account.api_key))

    def _headers(self, key: str | None) -> questions.Headers:
        told = {"Authorization": self._description.authorization, **self._description.headers}
        shown = ((name, value) for name, value in told.items() if value and (key is not None or "{key}" not in value))
        return (("Accept", "application/json"), *((name, value.format(key=key)) for name, value in shown))

    def read(self, subject: Subject, response: Response) -> Observation:
        """The observation of one task; an answer about another one is a problem."""
        body = reading.answer(response)
        return body if isinstance(body, Problem) else self._read_body(subject.task_id, body)

    def _read_body(self, task_id: str, body: object) -> Observation:
        at = self._description.answer
        about = fields.text(_at(at.id, body))
        if about and about != task_id:
            return Problem(ProblemCode.UNREADABLE, f"the answer is about another task, {fields.clean(about, 100)!r}")
        word = _word(at.status.of(body))
        if word is None:
            return reading.complaint(body)
        state = self._words.get(words.normal(word)) or words.state_of(word)
        if isinstance(state, Problem):
            return state
        ended_badly = state in FINAL and state is not State.COMPLETED
        reason, code = fields.text(_at(at.reason, body)), fields.text(_at(at.code, body))
        return Seen(
            status=fields.clean(word, words.LONGEST_STATUS),
            state=state,
            progress=fields.progress(_at(at.progress, body), whole=at.progress_whole),
            outputs=fields.numbered(self._outputs(body)) if state is State.COMPLETED else (),
            error=words.failure(state, word, reason, code) if ended_badly else None,
            raw=body,
            started_at=provider_time(_at(at.started_at, body)),
        )

    def _outputs(self, body: object) -> Iterator[Output | None]:
        for files in self._description.outputs:
            found = files.each.of(body)
            for item in (found if isinstance(found, list) else [found])[:MOST_FILES]:
                address = fields.url(files.url.of(item) if files.url else item)
                told = {
                    name: where.of(item)
                    for name in ("width", "height", "duration", "media_type")
                    if (where := getattr(files, name)) is not None
                }
                yield fields.output(files.kind or fields.kind_of(address) or "video", {"url": address, **told})

    def batch_question(self, account: Account, subjects: object) -> NoReturn:
        """Never called: `batch_size` is 0."""
        raise NotImplementedError(f"{self.name} has no batch query")

    def read_batch(self, subjects: object, response: Response) -> None:
        """There is no batch path, whatever came."""


def _at(where: Expression | None, body: object) -> object:
    return None if where is None else where.of(body)


def _word(value: object) -> str | None:
    """A status as a word: providers also say true, false or a number."""
    return str(value).lower() if isinstance(value, bool) else fields.text(value)
