"""Luma on a relay (yunwu and its family): `GET /luma/generations/{id}`, and `POST /luma/tasks` for many at once.

Source: the relay's page "query a single task"; the batch path and the other shapes are those of the same family of relays.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import orjson

from tracker.core.generation import Output, State
from tracker.core.lifecycle import FINAL
from tracker.core.observation import Observation, Problem, ProblemCode, Seen
from tracker.core.times import provider_time
from tracker.providers import fields, reading, words
from tracker.providers.base import Account, Question, Response, Subject

Node = Mapping[str, Any]

_KINDS = ("video", "video_raw", "thumbnail", "last_frame", "image")
_BAD_ENDS = frozenset({State.FAILED, State.CANCELLED})
_RESULTS = frozenset({"video", "video_raw", "image"})
_OF_THE_ACCOUNT = (ProblemCode.UNAUTHORIZED, ProblemCode.OUT_OF_QUOTA, ProblemCode.RATE_LIMITED)
"""Problems that every question of this credential would meet."""
_REASONS = ("failure_reason", "fail_reason", "state_reason")


class Luma:
    """The relay's form. Answers come bare, in an envelope `{code, message, data}`, or as a record that holds the bare one as `data`."""

    name = "luma"
    default_base_url = "https://yunwu.ai"
    kinds: tuple[str, ...] = ()
    batch_size = 50

    def question(self, account: Account, subject: Subject) -> Question:
        """One generation, with the headers of the relay's page."""
        return Question(
            "GET",
            f"{account.base_url.rstrip('/')}/luma/generations/{in_path(subject.task_id)}",
            headers(account),
        )

    def read(self, subject: Subject, response: Response) -> Observation:
        """The observation of one generation; an answer about another one is a problem."""
        body = reading.answer(response)
        return body if isinstance(body, Problem) else read_generation(subject.task_id, body)

    def batch_question(self, account: Account, subjects: Sequence[Subject]) -> Question:
        """Many generations in one request; not every relay has the path."""
        body = orjson.dumps({"ids": [subject.task_id for subject in subjects]})
        return Question("POST", f"{account.base_url.rstrip('/')}/luma/tasks", headers(account), body)

    def read_batch(self, subjects: Sequence[Subject], response: Response) -> Mapping[str, Observation] | None:
        """Both shapes: an array of generations, or an envelope whose `data` is an array of records.

        Whatever the batch path alone may have got wrong leaves ids out, so that they are asked singly.
        """
        body = reading.answer(response)
        asked = dict.fromkeys(subject.task_id for subject in subjects)
        if isinstance(body, Problem):
            return _without_batch(body, response, asked)
        items = body if isinstance(body, list) else fields.mapping(body).get("data")
        if not isinstance(items, list):
            refused = reading.complaint(body)
            return dict.fromkeys(asked, refused) if refused.code in _OF_THE_ACCOUNT else {}
        seen: dict[str, Observation] = {}
        for item in items:
            for task_id in filter(asked.__contains__, _ids(_layers(item))):
                seen.setdefault(task_id, read_generation(task_id, item))
        return seen

    def link_question(self, account: Account, subject: Subject, kind: str, answer: bytes) -> Question | None:
        """The page "link without watermark": worth asking where the answer has an empty `download_url` for the video."""
        if kind != "video" or not _without_download_url(answer):
            return None
        asked = self.question(account, subject)
        return asked._replace(url=f"{asked.url}/download_video_url")

    def read_link(self, response: Response) -> str | None:
        """`{"url": ...}`, bare or in an envelope."""
        body = reading.answer(response)
        found = [] if isinstance(body, Problem) else [*_values(_nodes(body), "url")]
        return next((url for value in found if (url := fields.url(value)) is not None), None)


def _nodes(body: Any) -> list[Node]:
    return [fields.mapping(body), fields.mapping(fields.mapping(body).get("data"))]


def _without_download_url(answer: bytes) -> bool:
    try:
        layers = _layers(orjson.loads(answer))
    except orjson.JSONDecodeError:
        return False
    places = (place for node in layers for place in (node, node.get("artifact"), node.get("assets")))
    videos = (fields.mapping(fields.mapping(place).get("video")) for place in places)
    said = [video["download_url"] for video in videos if "download_url" in video]
    return bool(said) and not any(fields.url(value) for value in said)


def headers(account: Account) -> tuple[tuple[str, str], ...]:
    """The three headers that the page asks for; an account without a key sends none."""
    return _headers(account.api_key)


@lru_cache(maxsize=1024)  # the same tuple for every question: the transport sets headers again only where they differ
def _headers(api_key: str | None) -> tuple[tuple[str, str], ...]:
    plain = (("Accept", "application/json"), ("Content-Type", "application/json"))
    return plain if api_key is None else (*plain, ("Authorization", f"Bearer {api_key}"))


def in_path(task_id: str) -> str:
    """The id as it stands in a URL's path."""
    # Nearly all are made of letters, digits and hyphens.
    return task_id if task_id.isascii() and task_id.replace("-", "").isalnum() else quote(task_id, safe="")


def read_generation(task_id: str, body: Any) -> Observation:
    """One generation from the JSON of an answer, in any of the shapes."""
    layers = _layers(body)
    if not (layers and layers[0].get("id") == task_id):  # nearly all answers say whom they are about in this place
        ids = _ids(layers)
        if ids and task_id not in ids:
            return Problem(ProblemCode.UNREADABLE, f"the answer is about another task, {fields.clean(ids[0], 100)!r}")
    word = _status(layers)
    if word is None:
        return reading.complaint(body)
    state = words.state_of(word)
    if isinstance(state, Problem):
        return state
    return Seen(
        status=fields.clean(word, words.LONGEST_STATUS),
        state=state,
        progress=fields.progress(_first(layers, "progress")),
        # What is shown before the end is a preview at best, and most answers are about pending ones.
        outputs=_outputs(layers) if state is State.COMPLETED else (),
        error=words.failure(state, word, _reason(layers), _code(layers)) if state in _BAD_ENDS else None,
        raw=body,
        started_at=provider_time(_first(layers, "start_time")),
    )


def _layers(body: Any) -> list[Node]:
    """The objects of an answer that speak about the generation, innermost first: its own, then the relay's record around it."""
    if isinstance(body, dict) and not isinstance(body.get("data"), dict):
        return [body]  # bare, as nearly all come
    found: list[Node] = []
    node = body
    while isinstance(node, dict) and len(found) < 3:  # noqa: PLR2004 - envelope, record, generation
        found.insert(0, node)
        node = node.get("data")
    return [node for node in found if node is found[0] or "task_id" in node or "state" in node]


def _ids(layers: Sequence[Node]) -> list[str]:
    return [said for node in layers for name in ("task_id", "id") if (said := fields.text(node.get(name))) is not None]


def _status(layers: Sequence[Node]) -> str | None:
    """The generation's own word, unless only the relay's record says that it ended (it refunds, and stops passing answers on)."""
    if len(layers) == 1 and "status" not in layers[0]:
        word = layers[0].get("state")
        return word if isinstance(word, str) else None
    said = [word for node in layers for name in ("state", "status") if isinstance(word := _spoken(node, name), str)]
    return min(said, key=_doubt) if len(said) > 1 else said[0] if said else None


def _spoken(node: Node, name: str) -> object:
    # A `status` without an id is an envelope's ("error", "success"): about the request, not about the generation.
    return node.get(name) if name == "state" or not node.keys().isdisjoint(("id", "task_id")) else None


def _doubt(word: str) -> int:
    state = words.known_state(word)
    return 2 if state is None else int(state not in FINAL)


def _first(layers: Sequence[Node], name: str) -> object:
    for node in layers:
        value: object = node.get(name)
        if value is not None:
            return value
    return None


def _values(layers: Sequence[Node], name: str) -> Iterator[object]:
    return (value for node in layers if (value := node.get(name)) is not None)


def _outputs(layers: Sequence[Node]) -> tuple[Output, ...]:
    """The outputs in the contract's order: from the top level, else from `artifact` (or the official form's `assets`).

    Pictures of a result that is not there are none: a completed generation shows its video, or nothing.
    """
    found = {kind: output for kind in _KINDS if (output := _output(kind, layers)) is not None}
    video, raw = found.get("video"), found.get("video_raw")
    if video is not None and video.duration is None and raw is not None and raw.url == video.url:
        found["video"] = replace(video, duration=raw.duration)
    return () if _RESULTS.isdisjoint(found) else tuple(found.values())


def _output(kind: str, layers: Sequence[Node]) -> Output | None:
    for node in layers:
        # At the top level an `image` is what the video was made from.
        described = () if kind == "image" else (node.get(kind), fields.mapping(node.get("artifact")).get(kind))
        for one in (*described, fields.mapping(node.get("assets")).get(kind)):
            found = None if one is None else fields.output(kind, one, prefer="download_url")
            if found is not None:
                return found
    return _from_record(layers) if kind == "video" else None


def _from_record(layers: Sequence[Node]) -> Output | None:
    # Relays on new-api keep the link in `result_url`, and their older versions in `fail_reason`.
    made = (fields.output("video", value) for name in ("result_url", "fail_reason") for value in _values(layers, name))
    return next((output for output in made if output is not None), None)


def _reason(layers: Sequence[Node]) -> str | None:
    errors = (
        error if isinstance(error, str) else fields.mapping(error).get("message") for error in _values(layers, "error")
    )
    stated = (*(value for name in _REASONS for value in _values(layers, name)), *errors)
    said = (fields.text(value) for value in stated if fields.url(value) is None)
    return next((reason for reason in said if reason is not None), None)


def _code(layers: Sequence[Node]) -> str | None:
    stated = (
        *_values(layers, "failure_code"),
        *(fields.mapping(error).get("code") for error in _values(layers, "error")),
    )
    return next((code for value in stated if (code := fields.text(value)) is not None), None)


def _without_batch(problem: Problem, response: Response, asked: Iterable[str]) -> Mapping[str, Observation] | None:
    """What a failed batch request means: the same problem for all, "ask singly" (nothing), or a path that is not there (None)."""
    status, body = response.status, response.body
    if response.failure == "too_large":
        return {}
    if response.failure is not None or problem.code in _OF_THE_ACCOUNT or (status >= 500 and status != 501):  # noqa: PLR2004
        return dict.fromkeys(asked, problem)
    if 200 <= status < 300:  # noqa: PLR2004 - HTTP's own numbers
        return None if reading.is_html(body) else {}
    return {} if status in (400, 422) and body.lstrip()[:1] == b"{" else None
