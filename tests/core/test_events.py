"""Payloads, byte for byte. A golden file is what receivers parse: change one only together with the contract."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracker.core.addresses import Policy, check_url
from tracker.core.events import (
    LEFT_OUT,
    LONGEST_BODY,
    SENT,
    URL_DEFAULT,
    EventType,
    endpoint_wants,
    envelope,
    generation_body,
    generation_fields,
    of_state,
    url_wants,
)
from tracker.core.generation import Artifact, ErrorCode, Failure, Generation, LastProblem, Output, State
from tracker.errors import InvalidError
from tracker.services.fields import LONGEST_METADATA
from tracker.services.forms import RegistrationForm, validated

GOLDEN = Path(__file__).parent / "golden"
BASE = "https://tracker.example"
START = datetime(2026, 1, 1, tzinfo=UTC)
KEY = UUID("0194209e-5a00-7000-8000-000000000001")
VIDEO = Output("video", 0, "https://cdn.example/a.mp4", 1360, 752, 5.041667, "video/mp4")
FRAME = Output("last_frame", 0, "https://cdn.example/a.jpg", 1360, 752, None, "image/jpeg")
STORED = Artifact(KEY, "video", 0, "stored", 9, 9, 4.5, "ab" * 32, "video/mp4", START + timedelta(seconds=70))
LOST = Artifact(KEY, "last_frame", 0, "failed", error={"code": "status", "message": "HTTP 403"})
LOST_AT_LENGTH = replace(LOST, error={"code": "corrupt", "message": "\x01" * 500})
PROBLEM = LastProblem("timeout", "no complete answer in time (timeout)", START + timedelta(seconds=30), 2)

OPEN = Generation(
    id=KEY, project_id=UUID(int=1), provider="luma", credential_id=1, credential="default",
    task_id="4665a07c-7641-4809-a133-10786201bb56", state=State.REGISTERED, registered_at=START,
    timeout=timedelta(hours=2), timeout_at=START + timedelta(hours=2), give_up_at=START + timedelta(hours=48),
    metadata={"order": 7, "title": "猫"}, tags=("paid",), next_poll_at=START + timedelta(seconds=4),
    expected_at=START + timedelta(seconds=40),
)  # fmt: skip
ASKED = replace(OPEN, last_polled_at=START + timedelta(seconds=4), polls=1, version=2, sequence=2)
OVER = replace(
    ASKED,
    finished_at=START + timedelta(seconds=60),
    next_poll_at=None,
    expected_at=None,
    polls=9,
    version=4,
    sequence=4,
)
DONE = replace(
    OVER, state=State.COMPLETED, provider_status="completed", progress=1.0, outputs=(VIDEO, FRAME), download=()
)
COPIED = replace(DONE, version=6, sequence=6, artifacts=(STORED, LOST))


def of_generation(type_: EventType, g: Generation, **more: Any) -> bytes:
    return generation_body(type_, g, at=START + timedelta(seconds=60), base_url=BASE, **more)


def bodies() -> dict[EventType, bytes]:
    queued = replace(ASKED, state=State.QUEUED, provider_status="pending")
    running = replace(
        ASKED,
        state=State.PROCESSING,
        provider_status="dreaming",
        progress=0.62,
        last_problem=PROBLEM,
        version=3,
        sequence=3,
    )
    refused = Failure(ErrorCode.MODERATED, "flagged by moderation", "400")
    failed = replace(OVER, state=State.FAILED, provider_status="failed", error=refused)
    late = replace(
        running,
        state=State.TIMED_OUT,
        version=4,
        sequence=4,
        webhook_url="https://a.example/in",
        webhook_events=("generation.completed",),
    )
    project = {"credential": "default", "providers": ["luma"], "reason": "out of quota: HTTP 403"}
    return {
        EventType.REGISTERED: of_generation(EventType.REGISTERED, OPEN),
        EventType.QUEUED: of_generation(EventType.QUEUED, queued, previous=State.REGISTERED),
        EventType.PROCESSING: of_generation(EventType.PROCESSING, running, previous=State.QUEUED),
        EventType.COMPLETED: of_generation(EventType.COMPLETED, DONE, previous=State.PROCESSING),
        EventType.FAILED: of_generation(EventType.FAILED, failed, previous=State.PROCESSING),
        EventType.CANCELLED: of_generation(
            EventType.CANCELLED, replace(OVER, state=State.CANCELLED), previous=State.QUEUED
        ),
        EventType.TIMED_OUT: of_generation(EventType.TIMED_OUT, late, previous=State.PROCESSING),
        EventType.ARTIFACT_STORED: of_generation(EventType.ARTIFACT_STORED, COPIED, artifact=STORED),
        EventType.ARTIFACT_FAILED: of_generation(EventType.ARTIFACT_FAILED, COPIED, artifact=LOST),
        EventType.ARTIFACTS_DONE: of_generation(EventType.ARTIFACTS_DONE, COPIED),
        EventType.ENDPOINT_DISABLED: envelope(
            EventType.ENDPOINT_DISABLED, START, {"endpoint_id": "ep_1", "reason": "the receiver answered 410 Gone"}
        ),
        EventType.CREDENTIAL_PAUSED: envelope(EventType.CREDENTIAL_PAUSED, START, project),
        EventType.CREDENTIAL_RESUMED: envelope(EventType.CREDENTIAL_RESUMED, START, project),
        EventType.PING: envelope(EventType.PING, START, {"endpoint_id": "ep_1"}),
    }


@pytest.mark.parametrize("type_", EventType)
def test_each_payload_is_its_golden_file_byte_for_byte(type_: EventType) -> None:
    assert bodies()[type_] == (GOLDEN / f"{type_.value}.json").read_bytes()


def test_every_golden_file_belongs_to_an_event() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == {type_.value for type_ in EventType}


CONTRACT = (
    "id provider credential task_id kind model state provider_status progress outputs error last_problem metadata tags registered_at "
    "submitted_at finished_at last_polled_at next_poll_at expected_at timeout_at give_up_at polls version artifacts"
)


def test_a_generation_shows_every_field_of_the_contract_and_nothing_internal() -> None:
    shown = generation_fields(OPEN, BASE)
    assert set(CONTRACT.split(" ")) <= shown.keys()
    assert not {"project_id", "credential_id", "webhook_receiver_id"} & shown.keys()


def test_a_payload_is_the_generations_fields_flat_with_two_more() -> None:
    event = json.loads(bodies()[EventType.COMPLETED])
    assert set(event) == {"type", "timestamp", "data"}
    assert set(event["data"]) == {*generation_fields(DONE, BASE), "sequence", "previous_state"}
    assert (event["data"]["sequence"], event["data"]["previous_state"]) == (4, "processing")


LETTERS = ["a", "é", "猫", "🎬", '"', "\\"]
"""From one to four bytes each in UTF-8, and two that JSON escapes: all of them are accepted in names, tags, task ids and URLs."""


def text(longest: int) -> st.SearchStrategy[str]:
    """Text of one letter, rather long than short."""
    return st.builds(
        lambda letter, length: letter * length,
        st.sampled_from(LETTERS),
        st.sampled_from([1, longest // 2, longest]) | st.integers(1, longest),
    )


def written(value: Any) -> int:
    return len(json.dumps(value, ensure_ascii=False).encode())


@st.composite
def accepted(draw: st.DrawFn) -> Generation:
    """Whatever registration accepts, with whatever providers say about it, each up to its own bound."""
    letter = draw(st.sampled_from(LETTERS))
    room = LONGEST_METADATA - len('{"text":""}')
    size = draw(st.sampled_from([0, room]) | st.integers(0, room)) // (written(letter) - 2)
    outputs = tuple(
        replace(VIDEO, index=n, url=f"https://cdn.example/{n}?signature={'x' * 400}")
        for n in range(draw(st.integers(0, 60)))
    )
    tag = draw(text(98))
    failure = Failure(ErrorCode.PROVIDER_ERROR, draw(text(2000)), draw(text(100)))
    return replace(
        DONE,
        outputs=outputs,
        artifacts=tuple(replace(STORED, index=o.index) for o in outputs[: draw(st.integers(0, 60))]),
        metadata={"text": letter * size},
        tags=tuple(f"{n:02}{tag}" for n in range(draw(st.sampled_from([0, 50]) | st.integers(0, 50)))),
        task_id=draw(text(512)),
        credential=draw(text(100)),
        kind=draw(st.none() | text(100)),
        model=draw(st.none() | text(100)),
        provider_status=draw(st.none() | text(100)),
        webhook_url=draw(st.none() | text(2026).map(lambda path: f"https://receiver.test/{path}")),
        webhook_events=draw(st.none() | st.just(tuple(sorted(SENT)))),
        last_problem=draw(st.none() | text(500).map(lambda message: replace(PROBLEM, message=message))),
        error=draw(st.none() | st.just(failure)),
    )


def accepted_at_its_bounds(letter: str) -> Generation:
    return replace(
        DONE, outputs=(), metadata={}, tags=tuple(f"{n:02}{letter * 98}" for n in range(50)), task_id=letter * 512,
        credential=letter * 100, kind=letter * 100, model=letter * 100, provider_status=letter * 100,
        webhook_url=f"https://receiver.test/{letter * 2026}", webhook_events=tuple(sorted(SENT)),
        last_problem=replace(PROBLEM, message=letter * 500),
        error=Failure(ErrorCode.PROVIDER_ERROR, letter * 2000, letter * 100),
    )  # fmt: skip


@given(g=accepted())
@example(g=accepted_at_its_bounds("🎬"))
@example(g=replace(accepted_at_its_bounds("🎬"), error=None))
@example(g=replace(OPEN, tags=tuple(f"{n:02}{'🎬' * 98}" for n in range(50))))
def test_a_payload_never_exceeds_its_bound_and_says_what_is_missing(g: Generation) -> None:
    body = of_generation(
        EventType.COMPLETED, g, previous=State.PROCESSING, artifact=None if g.error else LOST_AT_LENGTH
    )
    fields = json.loads(body)["data"]
    assert len(body) <= LONGEST_BODY
    missing = fields.pop("truncated", [])
    assert tuple(missing) == LEFT_OUT[: len(missing)]
    extra = {"sequence", "previous_state"} | (set() if g.error else {"artifact"})
    assert fields.keys() | set(missing) == generation_fields(g, BASE).keys() | extra
    whole = len(envelope(EventType.COMPLETED, START, generation_fields(g, BASE)))
    assert bool(missing) or whole <= LONGEST_BODY


def test_what_the_strategy_calls_accepted_is_what_registration_accepts() -> None:
    g = accepted_at_its_bounds("🎬")
    fields = {
        "provider": "luma", "task_id": g.task_id, "credential": g.credential, "kind": g.kind, "model": g.model,
        "tags": list(g.tags), "webhook_url": g.webhook_url, "events": list(g.webhook_events or ()),
    }  # fmt: skip
    validated(RegistrationForm, fields)
    assert check_url(g.webhook_url or "", Policy(), https_only=True) is None
    for name in ("task_id", "credential", "kind", "model", "webhook_url"):
        with pytest.raises(InvalidError):
            validated(RegistrationForm, fields | {name: f"{fields[name]}🎬"})
    for tags in ([*g.tags, "one more"], [g.tags[0] + "🎬"]):
        with pytest.raises(InvalidError):
            validated(RegistrationForm, fields | {"tags": tags})


def test_a_payload_at_the_bound_is_left_whole() -> None:
    room = LONGEST_BODY - len(of_generation(EventType.COMPLETED, replace(DONE, metadata={"text": ""})))
    exact = of_generation(EventType.COMPLETED, replace(DONE, metadata={"text": "a" * room}))
    over = of_generation(EventType.COMPLETED, replace(DONE, metadata={"text": "a" * (room + 1)}))
    assert len(exact) == LONGEST_BODY
    assert "truncated" not in json.loads(exact)["data"]
    assert json.loads(over)["data"]["truncated"] == ["outputs"]


@pytest.mark.parametrize("state", State)
def test_every_state_has_its_event(state: State) -> None:
    assert of_state(state).value == f"generation.{state.value}"


def test_registered_and_ping_are_sent_to_nobody_who_filters() -> None:
    assert EventType.REGISTERED not in SENT
    for type_ in (EventType.REGISTERED, EventType.PING):
        assert not endpoint_wants(type_, events=[type_.value], tags=[], providers=[], generation=OPEN)
    assert not url_wants(EventType.REGISTERED, ["generation.registered"])


@pytest.mark.parametrize("type_", sorted(SENT - {EventType.PING}))
def test_an_endpoint_without_filters_gets_all(type_: EventType) -> None:
    assert endpoint_wants(type_, events=[], tags=[], providers=[], generation=OPEN)
    assert endpoint_wants(type_, events=[], tags=[], providers=[], generation=None)
    assert not endpoint_wants(type_, events=["ping"], tags=[], providers=[], generation=OPEN)


@pytest.mark.parametrize(
    ("tags", "providers", "wanted"),
    [([], [], True), (["paid"], [], True), (["free", "paid"], ["luma", "suno"], True), (["free"], [], False), ([], ["suno"], False), (["paid"], ["suno"], False)],
)  # fmt: skip
def test_filters_must_all_let_it_through(tags: list[str], providers: list[str], wanted: bool) -> None:
    assert endpoint_wants(EventType.COMPLETED, events=[], tags=tags, providers=providers, generation=OPEN) is wanted
    assert endpoint_wants(EventType.CREDENTIAL_PAUSED, events=[], tags=tags, providers=providers, generation=None)


def test_a_webhook_url_gets_ends_and_artifacts_unless_it_chose() -> None:
    assert {type_ for type_ in EventType if url_wants(type_, None)} == URL_DEFAULT
    assert not {EventType.QUEUED, EventType.PROCESSING, EventType.ENDPOINT_DISABLED} & URL_DEFAULT
    assert {type_ for type_ in EventType if url_wants(type_, ["generation.queued"])} == {EventType.QUEUED}
    assert not any(url_wants(type_, []) for type_ in EventType)
