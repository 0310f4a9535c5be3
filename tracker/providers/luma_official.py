"""Luma's own API: `GET /dream-machine/v1/generations/{id}`. Its answers are the relay's with `assets` in place of the outputs.

States are queued, dreaming, completed and failed; the reason is in `failure_reason`. Its list has no filter by id, so there is no batch
query. Source: the provider's Python library and OpenAPI description.
"""

from __future__ import annotations

from tracker.providers.luma import FORM
from tracker.providers.plain import Plain

OFFICIAL = Plain("luma-official", "https://api.lumalabs.ai", "/dream-machine/v1/generations/{}", FORM)
