"""Runway on a relay (`GET /runwayml/v1/tasks/{id}`) and its own API (the same without `/runwayml`).

States are PENDING, THROTTLED (it waits for its turn), RUNNING with a progress, SUCCEEDED, FAILED and CANCELLED. There is one path for all
that it makes, and no batch query. Source: the provider's Python library and its pages on errors; relays show its own answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from tracker.core.generation import Output
from tracker.providers import fields
from tracker.providers.plain import Plain
from tracker.providers.relayed import Form, Node, innermost

VERSION = ("X-Runway-Version", "2024-11-06")
"""Without it the provider refuses; it is the version that its library sends."""


def _files(node: Node) -> Iterator[Output | None]:
    """`output` holds addresses, and what they are shows in their endings alone."""
    for address in fields.sequence(node.get("output")):
        yield fields.output(fields.kind_of(address) or "video", address)


FORM = Form(
    partial(innermost, _files),
    statuses=("status",),
    reasons=("failure", "fail_reason"),
    codes=("failureCode",),
    whole=1,
)
RELAY = Plain("runway", "https://yunwu.ai", "/runwayml/v1/tasks/{}", FORM, VERSION)
OFFICIAL = Plain("runway-official", "https://api.dev.runwayml.com", "/v1/tasks/{}", FORM, VERSION)
