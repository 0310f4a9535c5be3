"""Volcano Engine's Ark (Seedance): `GET /api/v3/contents/generations/tasks/{id}`. Links are good for a day.

States are queued, running, succeeded, failed, cancelled and expired; what a failed one says is in `error`. Source: the provider's pages.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracker.core.generation import Output
from tracker.providers import fields
from tracker.providers.plain import Plain
from tracker.providers.relayed import Form, Node


def _outputs(found: Sequence[Node]) -> tuple[Output, ...]:
    content = next((fields.mapping(node.get("content")) for node in found if node.get("content")), {})
    film = fields.output("video", content.get("video_url"))
    # A last frame of a film that is not there is no result.
    return () if film is None else fields.numbered((film, fields.output("last_frame", content.get("last_frame_url"))))


FORM = Form(_outputs, statuses=("status",), reasons=(), codes=())
ARK = Plain("ark", "https://ark.cn-beijing.volces.com", "/api/v3/contents/generations/tasks/{}", FORM)
