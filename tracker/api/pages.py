"""Pages of the stream, read once for all who stand at the same place."""

from __future__ import annotations

import asyncio
from uuid import UUID

from starlette.concurrency import run_in_threadpool

from tracker.services.feed import Entry, Feed

SLICE = 100
"""Events of one read."""


class Pages:
    """Followers who are up to date all ask for the same page at the same moment: one read serves them."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._running: dict[tuple[UUID, str, str | None], asyncio.Task[list[Entry]]] = {}

    async def behind(self, project_id: UUID, cursor: str, seen: str | None) -> list[Entry]:
        """Events behind `cursor`, oldest first, at least up to `seen`: only reads begun after that was seen are shared."""
        key = (project_id, cursor, seen)
        if key not in self._running:
            self._running[key] = asyncio.create_task(run_in_threadpool(self._feed.page, project_id, cursor, SLICE))
            self._running[key].add_done_callback(lambda _: self._running.pop(key, None))
        # One follower may leave while the others still wait for this read.
        return await asyncio.shield(self._running[key])
