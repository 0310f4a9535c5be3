"""A provider that a file describes: where it is asked, and where in its answers our words stand, as JMESPath expressions.

docs/PROVIDERS.md shows such a file, field by field. What a file does not say follows the rules of all providers: the same table of status
words, the same reading of errors, and never a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from string import Formatter
from typing import Annotated, Any, Literal, NoReturn, Self

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from tracker.core.generation import KINDS, Output, State
from tracker.core.lifecycle import FINAL
from tracker.core.observation import Observation, Problem, ProblemCode, Seen
from tracker.core.times import provider_time
from tracker.providers import fields, questions, reading, words
from tracker.providers.base import Account, Question, Response, Subject
from tracker.providers.plain import told_of_family
from tracker.settings import HttpUrl

LARGEST = 2**63
MOST_FILES = 1000
"""Of one task; more is a mistake of the expression or of the provider."""
_PROVIDERS_STATES = (State.QUEUED, State.PROCESSING, State.COMPLETED, State.FAILED, State.CANCELLED)
_PATH = re.compile(r"/[!-\"$-~]*", re.ASCII)
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
            found: object = self.compiled.search(body)
        except _STUMBLES:
            return None
        # `to_number` makes numbers of any length, which JSON's parser does not, and which cannot even be written out again.
        return None if isinstance(found, int) and abs(found) > LARGEST else found


def _expression(value: object) -> Expression:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("write a JMESPath expression, such as data.status")
    try:
        compiled = jmespath.compile(value)
    except JMESPathError as wrong:
        raise ValueError(f"{value!r} is not a JMESPath expression ({str(wrong).splitlines()[0]})") from None
    _check_functions(compiled.parsed)
    return Expression(value, compiled)


def _check_functions(node: Mapping[str, Any]) -> None:
    """JMESPath itself tells of a function that there is not only when it is applied, which would be with each answer."""
    if node["type"] == "function_expression":
        known = Functions.FUNCTION_TABLE.get(node["value"])
        if known is None:
            raise ValueError(f"there is no function {node['value']!r} in JMESPath")
        wanted, given = known["signature"], len(node["children"])
        if given < len(wanted) or (given > len(wanted) and not wanted[-1].get("variadic")):
            raise ValueError(f"the function {node['value']!r} takes {len(wanted)} arguments, and {given} are given")
    for child in node["children"]:
        _check_functions(child)


def _template(value: str, known: tuple[str, ...]) -> set[str]:
    """The names in braces. Raises ValueError for one that is not known, or for a brace alone."""
    try:
        parts = [part for part in Formatter().parse(value) if part[1] is not None]
    except ValueError as wrong:
        raise ValueError(f"{value!r}: {wrong}; write a brace as {{{{ or }}}}") from None
    names = {str(name) for _, name, _, _ in parts}
    # What str.format could do besides, with a colon or an exclamation mark, nobody needs here.
    if (
        names - set(known)
        or any(f"{{{name}}}" not in value for name in names)
        or any(form or how for *_, form, how in parts)
    ):
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
        if not _PATH.fullmatch(self.path):
            raise ValueError(
                "path: begin it with a slash, and write blanks and all but ASCII percent-encoded, without a fragment"
            )
        named = _template(self.path, ("id", "kind"))
        if "id" not in named:
            raise ValueError("path: it must hold {id}, where the task's id stands")
        if ("kind" in named) != bool(self.kinds):
            raise ValueError("kinds: name the families that {kind} in the path stands for, and only then")
        told: set[str] = {"accept"}
        for name, value in self.all_headers():
            if not _HEADER.fullmatch(name) or name.lower() in _OURS:
                raise ValueError(f"headers: {name!r} is not a header that may be set")
            if name.lower() in told:
                raise ValueError(
                    f"headers: {name!r} is set already; `authorization` has a line of its own, and Accept is JSON"
                )
            if not value.isascii() or not value.isprintable():
                raise ValueError(f"headers: the value of {name!r} must be plain ASCII on one line")
            _template(value, ("key",))
            told.add(name.lower())
        self.words()
        return self

    def all_headers(self) -> Iterator[tuple[str, str]]:
        """All but Accept, as templates."""
        yield "Authorization", self.authorization
        yield from self.headers.items()

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
        told = ((name, value) for name, value in self._description.all_headers() if value)
        shown = ((name, value.format(key=key)) for name, value in told if key is not None or "{key}" not in value)
        return (("Accept", "application/json"), *shown)

    def read(self, subject: Subject, response: Response) -> Observation:
        """The observation of one task; an answer about another one is a problem."""
        body = reading.answer(response)
        seen = body if isinstance(body, Problem) else self._read_body(subject.task_id, body)
        return told_of_family(seen, subject, self.kinds[0]) if self.kinds else seen

    def _read_body(self, task_id: str, body: object) -> Observation:
        at = self._description.answer
        about = fields.text(_at(at.id, body))
        if at.id and about is None:
            # It may be an envelope, whose status is that of the request.
            return reading.complaint(body, "id")
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
            progress=_share(_at(at.progress, body), at.progress_whole),
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


def _share(value: object, whole: int) -> float | None:
    """Progress from 0 to 1 of a number, or of one written out; a per cent sign says what it counts up to."""
    said = fields.text(value)
    if said is None:
        return None
    try:
        share = float(said.removesuffix("%")) / (100 if said.endswith("%") else whole)
    except ValueError:
        return None
    return round(min(max(share, 0.0), 1.0), 4) if isfinite(share) else None


def _word(value: object) -> str | None:
    """A status as a word: providers also say true, false or a number."""
    return str(value).lower() if isinstance(value, bool) else fields.text(value)
