"""The Celery application that workers, beat and Flower load: `celery -A workers.app worker -Q poll`.

Services are built in each process at its first task, after the fork: engines, sessions and object stores do not survive one.
"""

from __future__ import annotations

import logging
import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

from celery import Task
from celery.signals import (
    after_task_publish,
    beat_init,
    celeryd_init,
    setup_logging,
    worker_process_init,
    worker_process_shutdown,
    worker_shutting_down,
)
from typing_extensions import override

from tracker import logs, memory, wiring
from tracker.bell import celery_app
from tracker.errors import SchemaOutdatedError
from tracker.net import descriptors
from tracker.providers import take_in
from tracker.settings import attach, load
from tracker.store import db
from tracker.store.migrations import refuse_other_schema

log = logging.getLogger(__name__)

settings = attach(load())
take_in(settings.home)  # before any fork: processes that come later know the same providers
app = celery_app(settings.required("broker_url"))
app.conf.imports = ("workers.tasks",)

TALKATIVE = ("celery.worker.strategy", "celery.worker.request", "celery.app.trace", "celery.beat")
"""They write a line or two for every message: an installation with nothing to do is silent. `debug` lets them speak."""
UNUSED = "kombu.transport.native_delayed_delivery"
"""Warns at each start with RabbitMQ of a way to delay messages that we never use."""

PULSE = "BEAT_PULSE"
"""Variable with a file that beat touches at each ring that the broker took: a health check can see that it is young."""

TIMETABLE: dict[str, tuple[str, float]] = {
    "tick": ("upkeep.tick", 1.0),
    "fold clocks": ("upkeep.fold-clocks", 10.0),
    "sweep": ("upkeep.sweep", 3600.0),
}
"""Task and seconds. Beat only rings: 0, 1 or 5 beats are all safe. A tick that waited longer than its period is void."""

app.conf.beat_schedule = {
    name: {"task": task, "schedule": seconds, "options": {"queue": "default", "expires": max(1.0, min(seconds, 60.0))}}
    for name, (task, seconds) in TIMETABLE.items()
}


@cache
def services() -> wiring.Services:
    """This process's services."""
    return wiring.build(settings, application=f"tracker-worker-{os.getpid()}", pool=6)


@cache
def fit() -> bool:
    """Look once in each process whether the schema is ours. SchemaOutdatedError while it is not, so that the next task looks again."""
    with services().database.transaction() as tx:
        refuse_other_schema(tx)
    return True


@cache
def refuse(reason: str) -> None:
    """Say once in each process why it does nothing."""
    log.error("%s; until then this worker does nothing, and what is due stays due", reason)


class Patient(Task):  # type: ignore[misc]
    """A task without its database, or with one of another schema, does nothing, and says so in one line: what is due stays due."""

    @override
    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Run the task."""
        try:
            return super().__call__(*arguments, **named) if fit() else None
        except SchemaOutdatedError as other:
            refuse(str(other))
            return None
        except Exception as wrong:
            if not db.unreachable(wrong):
                raise
            log.warning("%s: the database is not reachable", self.name)
            return None


@setup_logging.connect
def _logging(**_: Any) -> None:
    logs.configure(settings, process="worker")
    if settings.log_level != "debug":
        for name in TALKATIVE:
            logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger(UNUSED).setLevel(logging.ERROR)


@beat_init.connect
def _show_pulse(**_: Any) -> None:
    if pulse := os.environ.get(PULSE):
        after_task_publish.connect(lambda **_: Path(pulse).touch(), weak=False)


class Ending:
    """How the processes of a pool learn that their worker ends: the only writing end of a pipe closes, by will or by death."""

    def __init__(self) -> None:
        self._reads, self._writes = os.pipe()

    def announce(self) -> None:
        """The worker ends. A second call changes nothing."""
        if self._writes >= 0:
            os.close(self._writes)
            self._writes = -1

    def watch(self) -> None:
        """In a process of the pool: stop what takes long when the worker ends."""
        self.announce()  # a copy of ours would keep the pipe open
        threading.Thread(target=self._wait, name="ending", daemon=True).start()

    def _wait(self) -> None:
        os.read(self._reads, 1)
        if services.cache_info().currsize:
            services().stop()


@celeryd_init.connect
def _begin(**_: Any) -> None:
    app.ending = Ending()


@worker_shutting_down.connect
def _announce(**_: Any) -> None:
    app.ending.announce()


@worker_process_init.connect
def _after_fork(**_: Any) -> None:
    memory.settle()
    descriptors.allow_many()
    services.cache_clear()
    fit.cache_clear()
    app.ending.watch()


@worker_process_shutdown.connect
def _goodbye(**_: Any) -> None:
    if services.cache_info().currsize:
        services().close()
