"""What lists look like, for the OpenAPI description: a page of what `schemas` describes, and where the next one begins."""

from __future__ import annotations

from tracker.api.schemas import (
    ArtifactShown,
    CredentialShown,
    DeliveryShown,
    EndpointShown,
    EventShown,
    GenerationShown,
    KeyShown,
    Shown,
    TransitionShown,
)


class GenerationPage(Shown):
    data: list[GenerationShown]
    next_cursor: str | None


class TransitionPage(Shown):
    data: list[TransitionShown]
    next_cursor: None


class ArtifactPage(Shown):
    data: list[ArtifactShown]
    next_cursor: None


class DeliveryPage(Shown):
    data: list[DeliveryShown]
    next_cursor: str | None


class EndpointPage(Shown):
    data: list[EndpointShown]
    next_cursor: str | None


class CredentialPage(Shown):
    data: list[CredentialShown]
    next_cursor: None


class KeyPage(Shown):
    data: list[KeyShown]
    next_cursor: str | None


class EventPage(Shown):
    """`next_cursor` is always there: with it the feed goes on where this page ended, whenever something new happens."""

    data: list[EventShown]
    next_cursor: str
