"""Videos in OpenAI's form: `GET /v1/videos/{id}`, the file at `/v1/videos/{id}/content` for whoever shows the key.

The service that it came from has ended; relays have kept the form, and some add a link. Source: the provider's Python library, the relays'
code. States are queued, in_progress, completed and failed, on relays also those of the providers behind them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import override

from tracker.core.generation import Output, State
from tracker.core.observation import Observation, Seen
from tracker.providers import fields, questions
from tracker.providers.base import Account, Response, Subject
from tracker.providers.plain import Plain
from tracker.providers.relayed import Form, Node, layers


class OpenAI(Plain):
    """Where the answer has no link, the file is asked for below the address that was asked, with the key."""

    @override
    def read(self, subject: Subject, response: Response) -> Observation:
        seen = super().read(subject, response)
        if isinstance(seen, Seen) and seen.state is State.COMPLETED and not seen.outputs and _own(seen.raw):
            content = fields.output("video", f"{response.asked}/content")
            return seen if content is None else replace(seen, outputs=(replace(content, media_type="video/mp4"),))
        return seen

    def download_headers(self, account: Account, url: str) -> questions.Headers:
        """The key, for the content's own address."""
        shown = account.api_key is not None and fields.path_of(url).endswith("/content")
        return (("Authorization", f"Bearer {account.api_key}"),) if shown else ()


def _own(body: object) -> bool:
    video = layers(body)[0] if isinstance(body, dict) else {}
    error = fields.mapping(video.get("error"))
    return video.get("object", "video") == "video" and not (error.get("code") or error.get("message"))


def _outputs(found: Sequence[Node]) -> tuple[Output, ...]:
    for node in found:
        for place in (node, fields.mapping(node.get("metadata"))):
            film = fields.output("video", place.get("url")) or fields.output("video", place.get("video_url"))
            if film is not None:
                return (film,)
    return ()


FORM = Form(_outputs, statuses=("status",), reasons=("fail_reason",), codes=())
OPENAI = OpenAI("openai", "https://api.openai.com", "/v1/videos/{}", FORM)
