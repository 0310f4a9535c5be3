"""What every route gets: the services of this process and the few things that belong to the API alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Request

from tracker.api.pages import Pages
from tracker.api.paging import Cursors
from tracker.api.waiting import Watch
from tracker.settings import Settings
from tracker.wiring import Services

LARGEST_CROWD = 2000
"""Requests that may wait at once in one process: each costs some memory and a socket, so there is a bound."""
MOST_STREAMS = 500


@dataclass(frozen=True)
class Context:
    """One per process. `versions` wakes by generation, `news` by project."""

    settings: Settings
    services: Services
    cursors: Cursors
    versions: Watch[UUID, int]
    news: Watch[UUID, str]
    pages: Pages

    @classmethod
    def of(cls, settings: Settings, services: Services) -> Context:
        """Everything that waits shares the two watches made here."""
        return cls(
            settings=settings,
            services=services,
            cursors=Cursors(settings.required("secret_keys").split(",")[-1].strip()),
            versions=Watch(services.generations.versions, most=LARGEST_CROWD),
            news=Watch(lambda projects: {p: services.feed.newest(p) for p in projects}, most=MOST_STREAMS),
            pages=Pages(services.feed),
        )

    def close(self) -> None:
        """Let everybody go who waits, so that a stop does not take their time."""
        self.versions.close()
        self.news.close()

    @property
    def base_url(self) -> str:
        """Where people and links reach us."""
        return self.settings.base_url


async def _context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


async def _services(request: Request) -> Services:
    context: Context = request.app.state.context
    return context.services


Here = Annotated[Context, Depends(_context)]
Use = Annotated[Services, Depends(_services)]
"""The services: what a route uses."""
