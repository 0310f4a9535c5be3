"""`python -m tracker.api`: the API as a process of its own."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from typing_extensions import override

from tracker import logs, memory, settings, wiring
from tracker.api.app import create_app
from tracker.api.context import Context
from tracker.errors import TrackerError
from tracker.net import descriptors
from tracker.providers import take_in
from tracker.settings import Settings
from tracker.store import db
from tracker.store.migrations import refuse_other_schema
from tracker.wiring import Services

log = logging.getLogger("tracker.api")

CONNECTIONS = 20
"""Database connections kept, and as many more in a rush: together as many as there are threads for requests (40)."""
DRAIN = 8
"""Seconds for running requests at a stop: below the 10 s after which the supervisor, like Docker, kills."""
SIMULATOR_VARIABLE = "TRACKER_INTERNAL_SIMULATOR_URL"


class Server(uvicorn.Server):
    """uvicorn, which would let streams and waiters use up the time for draining, and then end by the signal itself."""

    def __init__(self, config: uvicorn.Config, context: Context) -> None:
        super().__init__(config)
        self._context = context

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """A signal that asks us to stop is answered when we have: it is not raised again, so that everything is closed behind us."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self.handle_exit)
        yield

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._context.close()
        await super().shutdown(sockets)


def prepare(found: Settings, services: Services, simulator_url: str | None) -> None:
    """What must be true before the first request: the right schema, the bootstrap key, the environment's credentials."""
    with services.database.transaction() as tx:
        refuse_other_schema(tx)
    services.keys.ensure_bootstrap(found.required("bootstrap_api_key"))
    default = services.keys.project(make=True)
    services.credentials.sync_environment(default.project_id, found, simulator_url)


def serve(found: Settings, services: Services) -> None:
    """Until SIGTERM or SIGINT; running requests get up to DRAIN seconds."""
    app = create_app(found, services)
    options: dict[str, Any] = {
        "host": found.api_host,
        "port": found.api_port,
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "ws": "none",
        "timeout_graceful_shutdown": DRAIN,
    }
    memory.settle()
    descriptors.allow_many()
    Server(uvicorn.Config(app, **options), app.state.context).run()


def main() -> int:
    """Exit code 1 with one line when it cannot start."""
    try:
        found = settings.attach(settings.load())
        logs.configure(found, "api")
        take_in(found.home)
        services = wiring.build(found, application="tracker-api", pool=CONNECTIONS)
        try:
            prepare(found, services, os.environ.get(SIMULATOR_VARIABLE))
            serve(found, services)
        finally:
            services.close()
    except TrackerError as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 1
    except Exception as wrong:
        if not db.unreachable(wrong):
            raise
        sys.stderr.write("the database cannot be reached; see that it runs, and that TRACKER_DATABASE_URL is right\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
