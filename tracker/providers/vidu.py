"""Vidu: `GET /ent/v2/tasks/{id}/creations`. Links are good for a day.

States are created, queueing, processing, success and failed. Source: the provider's pages; how its list takes several ids is not shown
there, so there is no batch query.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from typing_extensions import override

from tracker.core.generation import Output
from tracker.providers import fields, questions
from tracker.providers.base import Account
from tracker.providers.plain import Plain
from tracker.providers.relayed import Form, Node


class Vidu(Plain):
    """The key is a `Token`, not a bearer."""

    @override
    def headers(self, account: Account) -> questions.Headers:
        shown = () if account.api_key is None else (("Authorization", f"Token {account.api_key}"),)
        return questions.bearer(replace(account, api_key=None), *shown)


def _outputs(found: Sequence[Node]) -> tuple[Output, ...]:
    return fields.numbered(
        output for node in found for one in fields.sequence(node.get("creations")) for output in _files(one)
    )


def _files(creation: object) -> Iterator[Output | None]:
    node = fields.mapping(creation)
    address = fields.url(node.get("url")) or fields.url(node.get("watermarked_url"))
    made = fields.output(fields.kind_of(address) or "video", address)
    yield made
    yield None if made is None else fields.output("thumbnail", node.get("cover_url"))


FORM = Form(_outputs, statuses=("state",), reasons=("err_msg", "err_code"), codes=("err_code",))
VIDU = Vidu("vidu", "https://api.vidu.com", "/ent/v2/tasks/{}/creations", FORM)
