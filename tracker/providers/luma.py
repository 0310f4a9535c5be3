"""Luma on a relay (yunwu and its family): `GET /luma/generations/{id}`, and `POST /luma/tasks` for many at once.

Source: the relay's page "query a single task"; the batch path and the other shapes are those of the same family of relays.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from tracker.core.generation import Output
from tracker.core.observation import Observation, Problem
from tracker.providers import fields, questions, reading, relayed, words
from tracker.providers.base import Account, Question, Response, Subject
from tracker.providers.relayed import Node

_KINDS = ("video", "video_raw", "thumbnail", "last_frame", "image")
_RESULTS = frozenset({"video", "video_raw", "image"})


class Luma:
    """The relay's form. Answers come bare, in an envelope `{code, message, data}`, or as a record that holds the bare one as `data`."""

    name = "luma"
    default_base_url = "https://yunwu.ai"
    kinds: tuple[str, ...] = ()
    batch_size = 50

    def question(self, account: Account, subject: Subject) -> Question:
        """One generation, with the headers of the relay's page."""
        return questions.get(
            account, f"/luma/generations/{questions.in_path(subject.task_id)}", questions.bearer(account)
        )

    def read(self, subject: Subject, response: Response) -> Observation:
        """The observation of one generation; an answer about another one is a problem."""
        return FORM.read(subject, response)

    def batch_question(self, account: Account, subjects: Sequence[Subject]) -> Question:
        """Many generations in one request; not every relay has the path."""
        body = orjson.dumps({"ids": [subject.task_id for subject in subjects]})
        return Question("POST", f"{account.base_url.rstrip('/')}/luma/tasks", questions.bearer(account), body)

    def read_batch(self, subjects: Sequence[Subject], response: Response) -> Mapping[str, Observation] | None:
        """Both shapes: an array of generations, or an envelope whose `data` is an array of records."""
        return FORM.read_batch(subjects, response)

    def link_question(self, account: Account, subject: Subject, kind: str, answer: bytes) -> Question | None:
        """The page "link without watermark": worth asking where the answer has an empty `download_url` for the video."""
        if kind != "video" or not _without_download_url(answer):
            return None
        asked = self.question(account, subject)
        return asked._replace(url=f"{asked.url}/download_video_url")

    def read_link(self, response: Response) -> str | None:
        """`{"url": ...}`, bare or in an envelope."""
        body = reading.answer(response)
        found = [] if isinstance(body, Problem) else [*relayed.values(_nodes(body), "url")]
        return next((url for value in found if (url := fields.url(value)) is not None), None)


def _nodes(body: Any) -> list[Node]:
    return [fields.mapping(body), fields.mapping(fields.mapping(body).get("data"))]


def _without_download_url(answer: bytes) -> bool:
    try:
        found = relayed.layers(orjson.loads(answer))
    except orjson.JSONDecodeError:
        return False
    places = (place for node in found for place in (node, node.get("artifact"), node.get("assets")))
    videos = (fields.mapping(fields.mapping(place).get("video")) for place in places)
    said = [video["download_url"] for video in videos if "download_url" in video]
    return bool(said) and not any(fields.url(value) for value in said)


def _outputs(found: Sequence[Node]) -> tuple[Output, ...]:
    """The outputs in the contract's order: from the top level, else from `artifact` (or the official form's `assets`).

    Pictures of a result that is not there are none: a completed generation shows its video, or nothing.
    """
    made = {kind: output for kind in _KINDS if (output := _output(kind, found)) is not None}
    if _RESULTS.isdisjoint(made):
        made = {linked.kind: linked for linked in relayed.linked(found)} | made
    video, raw = made.get("video"), made.get("video_raw")
    if video is not None and video.duration is None and raw is not None and raw.url == video.url:
        made["video"] = replace(video, duration=raw.duration)
    return () if _RESULTS.isdisjoint(made) else tuple(made.values())


def _output(kind: str, found: Sequence[Node]) -> Output | None:
    for node in found:
        # At the top level an `image` is what the video was made from.
        described = () if kind == "image" else (node.get(kind), fields.mapping(node.get("artifact")).get(kind))
        for one in (*described, fields.mapping(node.get("assets")).get(kind)):
            made = None if one is None else fields.output(kind, one, prefer="download_url")
            if made is not None:
                return made
    return None


def _alone(item: Any) -> Any:
    """The generation's own layer, where it says what the record around it says: a record alone may know the end."""
    found = relayed.layers(item) if isinstance(item, dict) else []
    if len(found) < 2:  # noqa: PLR2004 - bare
        return item
    said = [words.known_state(word) for word in (found[0].get("state"), item.get("status")) if isinstance(word, str)]
    return found[0] if len(said) == 2 and said[0] is said[1] else item  # noqa: PLR2004 - both of them


FORM = relayed.Form(_outputs, alone=_alone)
"""Also that of the provider's own API, which has `assets` in place of the outputs."""
