"""Suno on a relay: `GET /suno/fetch/{id}`, and `POST /suno/fetch` for many at once. A task makes several clips.

Source: the pages of the relays and the code of the public ones. Lyrics are text and have no file to give: they are not tracked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from typing_extensions import override

from tracker.core.generation import Output, State
from tracker.core.observation import Observation
from tracker.providers import fields, questions, words
from tracker.providers.base import Account, Question, Response, Subject
from tracker.providers.relayed import Form, Node


class Suno:
    """The relay's form: a record of the task, whose `data` lists the clips. One relay shows the clips alone."""

    name = "suno"
    default_base_url = "https://yunwu.ai"
    kinds: tuple[str, ...] = ()
    batch_size = 50

    def question(self, account: Account, subject: Subject) -> Question:
        """One task."""
        return questions.get(account, f"/suno/fetch/{questions.in_path(subject.task_id)}", questions.bearer(account))

    def read(self, subject: Subject, response: Response) -> Observation:
        """The observation of one task; an answer about another one is a problem."""
        return FORM.read(subject, response)

    def batch_question(self, account: Account, subjects: Sequence[Subject]) -> Question:
        """Many tasks in one request. Those that the relay does not know are missing from the answer."""
        body = orjson.dumps({"ids": [subject.task_id for subject in subjects], "action": "MUSIC"})
        return Question("POST", f"{account.base_url.rstrip('/')}/suno/fetch", questions.bearer(account), body)

    def read_batch(self, subjects: Sequence[Subject], response: Response) -> Mapping[str, Observation] | None:
        """An envelope whose `data` is an array of records, or that array."""
        return FORM.read_batch(subjects, response)


class _Form(Form):
    @override
    def read_body(self, task_id: str, body: Any) -> Observation:
        return super().read_body(task_id, _recorded(task_id, body))


def _recorded(task_id: str, body: Any) -> Any:
    """The record of the task, made up where the relay shows nothing but its clips; a reason that only the clips tell is the record's."""
    outer = fields.mapping(body)
    record = outer if {"task_id", "id"} & outer.keys() else outer.get("data", body)
    if isinstance(record, list):
        named = [one for one in record if "task_id" in fields.mapping(one)]
        if named:
            record = next((one for one in named if one["task_id"] == task_id), named[0])
        elif record:
            record = {"task_id": task_id, "status": _status(record), "data": record}
    if not isinstance(record, dict):
        return body
    if fields.text(record.get("fail_reason")) is None:
        told = (fields.mapping(clip.get("metadata")) for clip in _clips(record))
        reason = next((node for node in told if fields.text(node.get("error_message")) is not None), {})
        record = record | {"fail_reason": reason.get("error_message"), "failure_code": reason.get("error_type")}
    return record


def _status(clips: Sequence[Any]) -> str | None:
    """The word of a task that is told by its clips alone: of the one that is furthest from its end, and of a bad end only if all met it."""
    said = [fields.text(fields.mapping(clip).get("status")) for clip in clips]
    spoken = [word for word in said if word is not None]
    return min(spoken, key=_turn) if len(spoken) == len(said) else None


def _turn(word: str) -> int:
    state = words.known_state(word)
    # An unknown word comes before all: it is a problem, and must not be taken for an end.
    return -1 if state is None else _TURNS.index(state)


_TURNS = (State.QUEUED, State.PROCESSING, State.COMPLETED, State.FAILED, State.CANCELLED)


def _outputs(found: Sequence[Node]) -> tuple[Output, ...]:
    made = fields.numbered(output for node in found for clip in _clips(node) for output in _files(clip))
    return made if any(output.kind == "audio" for output in made) else ()


def _clips(node: Node) -> Iterator[Node]:
    return (fields.mapping(clip) for clip in fields.sequence(node.get("data")))


def _files(clip: Node) -> Iterator[Output | None]:
    yield fields.output(
        "audio", {"url": clip.get("audio_url"), "duration": fields.mapping(clip.get("metadata")).get("duration")}
    )
    yield fields.output("video", clip.get("video_url"))
    yield fields.output("image", clip.get("image_large_url")) or fields.output("image", clip.get("image_url"))


FORM = _Form(_outputs, alone=lambda item: {"code": "success", "message": "", "data": item})
