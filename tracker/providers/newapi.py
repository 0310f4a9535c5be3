"""What gateways have for whatever they relay: new-api's `GET /v1/video/generations/{id}`, and yunwu's `GET /v1/video/query?id=`.

In the record of new-api, `data` is what the real provider said, in words of its own; the record's status and link are there whatever
that is. yunwu's answer may show another id than the one it was asked with. Source: the gateways' pages and public code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from typing_extensions import override

from tracker.core.generation import Output
from tracker.core.observation import Observation
from tracker.providers import fields
from tracker.providers.plain import Plain
from tracker.providers.relayed import Form, Node


def _outputs(found: Sequence[Node]) -> tuple[Output, ...]:
    # From the outside in: the record's link is the relay's own, and what the provider said may be of any shape.
    made = next((one for node in reversed(found) for one in _links(node) if one is not None), None)
    return () if made is None else (made,)


def _links(node: Node) -> Iterator[Output | None]:
    for value in (node.get("url"), node.get("video_url"), fields.mapping(node.get("metadata")).get("url")):
        yield fields.output(fields.kind_of(value) or "video", value)


class _Record(Form):
    @override
    def read_body(self, task_id: str, body: Any) -> Observation:
        record = fields.mapping(body)
        # What is inside a record is another's, and not always said to be so by an envelope around the record.
        bare = "task_id" in record and "data" in record
        return super().read_body(
            task_id, {name: value for name, value in record.items() if name != "data"} if bare else body
        )


NEWAPI = Plain("newapi", "https://yunwu.ai", "/v1/video/generations/{}", _Record(_outputs, depth=2))
YUNWU = Plain("yunwu", "https://yunwu.ai", "/v1/video/query?id={}", Form(_outputs, own_id=False))
