"""What happened, as receivers read it: event types, who wants which, and the payload (byte-identical on every attempt)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from tracker.core import ids
from tracker.core.generation import Artifact, Generation, Output, State
from tracker.core.times import rfc3339

LONGEST_BODY = 20_000
"""Bytes of a payload, as Standard Webhooks advises; above it fields are left out, as far as needed."""
LEFT_OUT = ("outputs", "metadata", "artifacts", "tags", "webhook_url", "last_problem")
"""What is left out, in this order: the API still has it. What stays is bounded where it comes in, to 17,000 bytes in all."""


class EventType(StrEnum):
    """Every kind of event. A receiver never gets `generation.registered`: it is sequence 1, and only kept."""

    REGISTERED = "generation.registered"
    QUEUED = "generation.queued"
    PROCESSING = "generation.processing"
    COMPLETED = "generation.completed"
    FAILED = "generation.failed"
    CANCELLED = "generation.cancelled"
    TIMED_OUT = "generation.timed_out"
    ARTIFACT_STORED = "artifact.stored"
    ARTIFACT_FAILED = "artifact.failed"
    ARTIFACTS_DONE = "artifacts.done"
    ENDPOINT_DISABLED = "endpoint.disabled"
    CREDENTIAL_PAUSED = "credential.paused"
    CREDENTIAL_RESUMED = "credential.resumed"
    PING = "ping"


SENT = frozenset(EventType) - {EventType.REGISTERED}
"""What may be subscribed to."""
URL_DEFAULT = frozenset(
    {
        EventType.COMPLETED, EventType.FAILED, EventType.CANCELLED, EventType.TIMED_OUT,
        EventType.ARTIFACT_STORED, EventType.ARTIFACT_FAILED, EventType.ARTIFACTS_DONE,
    }
)  # fmt: skip
"""What a `webhook_url` without `events` gets."""


def of_state(state: State) -> EventType:
    """The event that entering `state` is."""
    return EventType(f"generation.{state}")


def endpoint_wants(
    type_: EventType,
    *,
    events: Collection[str],
    tags: Collection[str],
    providers: Collection[str],
    generation: Generation | None,
) -> bool:
    """Whether an endpoint with these filters gets the event; an empty filter lets everything through."""
    if type_ not in SENT or type_ is EventType.PING or (events and type_ not in events):
        return False
    if generation is None:
        return True
    return (not tags or bool(set(tags) & set(generation.tags))) and (not providers or generation.provider in providers)


def url_wants(type_: EventType, events: Collection[str] | None) -> bool:
    """Whether a generation's `webhook_url` gets the event."""
    return type_ in SENT and (type_ in URL_DEFAULT if events is None else type_ in events)


def output_fields(output: Output) -> dict[str, Any]:
    """An output as callers see it."""
    return {
        name: getattr(output, name) for name in ("kind", "index", "url", "width", "height", "duration", "media_type")
    }


def artifact_fields(artifact: Artifact, base_url: str) -> dict[str, Any]:
    """An artifact as callers see it; `url` is ours and needs a key."""
    place = f"{base_url}/v1/generations/{ids.public('gen', artifact.generation_id)}/artifacts/{artifact.kind}/{artifact.index}"
    return {
        "kind": artifact.kind,
        "index": artifact.index,
        "state": artifact.state,
        "size": artifact.size,
        "bytes_done": artifact.bytes_done,
        "bytes_per_second": artifact.bytes_per_second,
        "sha256": artifact.sha256,
        "media_type": artifact.media_type,
        "url": place,
        "stored_at": _time(artifact.stored_at),
        "error": artifact.error,
    }


def generation_fields(g: Generation, base_url: str) -> dict[str, Any]:
    """A generation as callers see it, in the API and in payloads alike."""
    problem = g.last_problem
    return {
        "id": ids.public("gen", g.id),
        "provider": g.provider,
        "credential": g.credential,
        "task_id": g.task_id,
        "kind": g.kind,
        "model": g.model,
        "state": g.state.value,
        "provider_status": g.provider_status,
        "progress": g.progress,
        "outputs": [output_fields(output) for output in g.outputs],
        "error": g.error
        and {"code": g.error.code.value, "message": g.error.message, "provider_code": g.error.provider_code},
        "last_problem": problem
        and {"code": problem.code, "message": problem.message, "at": rfc3339(problem.at), "in_a_row": problem.in_a_row},
        "metadata": g.metadata,
        "tags": list(g.tags),
        "webhook_url": g.webhook_url,
        "events": None if g.webhook_events is None else list(g.webhook_events),
        "download": None if g.download is None else (list(g.download) or True),
        **{
            name: _time(getattr(g, name))
            for name in (
                "registered_at",
                "submitted_at",
                "finished_at",
                "last_polled_at",
                "next_poll_at",
                "expected_at",
            )
        },
        "timeout_at": rfc3339(g.timeout_at),
        "give_up_at": rfc3339(g.give_up_at),
        "polls": g.polls,
        "version": g.version,
        "artifacts": [artifact_fields(artifact, base_url) for artifact in g.artifacts],
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)


def generation_body(
    type_: EventType,
    g: Generation,
    *,
    at: datetime,
    base_url: str,
    previous: State | None = None,
    artifact: Artifact | None = None,
) -> bytes:
    """The payload of an event of a generation, as of the commit that `g` will be."""
    fields = generation_fields(g, base_url) | {"sequence": g.sequence, "previous_state": previous and previous.value}
    if artifact is not None:
        fields["artifact"] = artifact_fields(artifact, base_url)
    body, truncated = envelope(type_, at, fields), []
    for name in LEFT_OUT:
        if len(body) <= LONGEST_BODY:
            break
        truncated.append(name)
        del fields[name]
        body = envelope(type_, at, fields | {"truncated": truncated})
    return body


def envelope(type_: EventType, at: datetime, fields: Mapping[str, Any]) -> bytes:
    """`{"type", "timestamp", "data"}` in compact UTF-8."""
    return json.dumps(
        {"type": type_.value, "timestamp": rfc3339(at), "data": fields}, ensure_ascii=False, separators=(",", ":")
    ).encode()
