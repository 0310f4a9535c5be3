"""The providers' words, turned into ours: status words into states, failure reasons into error codes. One table for all providers.

It never guesses: a word that is not in the table is a problem to look into, never a state.
"""

from __future__ import annotations

import re

from tracker.core.generation import ErrorCode, Failure, State
from tracker.core.observation import Problem, ProblemCode
from tracker.providers.fields import clean

LONGEST_STATUS = 100
"""Characters of a status word that are kept: the longest one seen has 26."""
LONGEST_REASON = 2000

_SPOKEN: dict[State, str] = {
    State.QUEUED: "pending queued queueing in_queue submitted created preparing not_start throttled initializing wait starting",
    # `runnning` is what one relay really writes. Veo's `*_completed` words name stages, not the end.
    State.PROCESSING: "processing running runnning in_progress dreaming generating streaming image_downloading "
    "video_generating video_generation_completed video_upsampling video_upsampling_completed",
    State.COMPLETED: "completed complete succeed succeeded success finished done",
    State.FAILED: "failed fail failure error video_generation_failed video_upsampling_failed timeout aborted expired",
    State.CANCELLED: "cancelled canceled cancel canceling",
}
STATES: dict[str, State] = {word: state for state, words in _SPOKEN.items() for word in words.split()}
"""Every status word known, in the form that `normal` gives."""

NOT_FOUND = frozenset({"not_found", "task_not_exist", "task_no_found", "task_not_found", "midjourney_task_not_found"})
"""Words for "no such task", as codes, messages or states. They prove little: relays say so for minutes after a submit."""

_MODERATED = re.compile(
    r"moderat|nsfw|safety|sensitive|inappropriate|prohibited|risk[ _-](control|not[ _-]pass)|content[ _-](policy|filter)"
    r"|(community|usage)[ _-](guideline|polic)|violat\w+ (of |our |the |content|terms|polic)|审核|敏感|违规",
    re.IGNORECASE,
)
_BAD_INPUT = re.compile(
    r"\b(invalid|unsupported|corrupt|malformed|missing)[a-z]*[ _-]([a-z]+[ _-]){0,2}"
    r"(image|input|prompt|param|request|format|url|value|file|aspect)"
    r"|\btoo[ _-](large|small|big|long|short)|\bbad[ _-](input|request)|\baspect[ _-]ratio"
    r"|\b(download|fetch|load|read)[a-z]*( [a-z]+){0,2} (image|input)"
    r"|\b(image|input|prompt|file|format)( [a-z]+){0,3} (not supported|unsupported|invalid|corrupt)|参数",
    re.IGNORECASE,
)


def normal(word: str) -> str:
    """The word in the form of the tables: lower case, and one underscore for blanks and hyphens."""
    return re.sub(r"[\s-]+", "_", word.strip().lower())


def known_state(word: str) -> State | None:
    """The state of a word in the table, however it is written."""
    # Nearly all come in the table's own form.
    return STATES.get(word) or STATES.get(normal(word))


def state_of(word: str) -> State | Problem:
    """The state that a provider's status word means; a lookup word ("not_found") and an unknown one are problems."""
    known = known_state(word)
    if known is not None:
        return known
    shown = clean(word, LONGEST_STATUS)
    if normal(word) in NOT_FOUND:
        return Problem(ProblemCode.NOT_FOUND, f"the provider gives the status {shown!r}")
    return Problem(ProblemCode.UNKNOWN_STATUS, f"the status {shown!r} is not known", status=shown)


def failure(state: State, word: str, reason: str | None, code: str | None) -> Failure:
    """Why it failed or was cancelled. Without a reason the status word itself must do."""
    message = clean(reason or "", LONGEST_REASON)
    shown = clean(word, LONGEST_STATUS)
    return Failure(
        _error_code(state, word, f"{code or ''} {message}"),
        message or f"the provider says {shown!r} and gives no reason",
        clean(code, LONGEST_STATUS) if code else None,
    )


def _error_code(state: State, word: str, reason: str) -> ErrorCode:
    if state is State.CANCELLED:
        return ErrorCode.CANCELLED_BY_PROVIDER
    if normal(word) == "expired":
        return ErrorCode.EXPIRED
    if _MODERATED.search(reason):
        return ErrorCode.MODERATED
    return ErrorCode.BAD_INPUT if _BAD_INPUT.search(reason) else ErrorCode.PROVIDER_ERROR
