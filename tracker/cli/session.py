"""One command's connection to the product: settings, services and the project it acts in, given back at the end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from tracker.settings import Settings
    from tracker.wiring import Services

DEFAULT_PROJECT = "default"


@dataclass(frozen=True)
class Session:
    """What a command works with."""

    settings: Settings
    services: Services
    project_id: UUID

    def now(self) -> datetime:
        """The database's time: the one that everything stored is in."""
        from tracker.store import db

        with self.services.database.transaction() as tx:
            return db.now(tx)


def settings_here() -> Settings:
    """The settings of this installation, with what its running embedded tracker knows. Raises NotRunningError, ConfigurationError."""
    from tracker import logs
    from tracker.settings import attach, load

    settings = attach(load())
    # A person reads the answer, not the log: only what is wrong is told, unless it was asked for.
    logs.configure(settings if "log_level" in settings.given else settings.changed(log_level="warning"), "cli")
    return settings


@contextmanager
def opened(project: str = DEFAULT_PROJECT, *, make: bool = False) -> Iterator[Session]:
    """The services, for the time of the block. NotFoundError for an unknown project, SchemaOutdatedError for an old database."""
    from tracker import wiring
    from tracker.providers import take_in
    from tracker.store.migrations import refuse_other_schema

    settings = settings_here()
    take_in(settings.home)
    services = wiring.build(settings, application="tracker-cli", pool=2)
    try:
        with services.database.transaction() as tx:
            refuse_other_schema(tx)
        yield Session(
            settings, services, services.keys.project(project, make=make or project == DEFAULT_PROJECT).project_id
        )
    finally:
        services.close()
