"""The Celery application that workers, beat and Flower load: `celery -A workers.app worker -Q poll`.

Services are built in each process at its first task, after the fork: engines, sessions and object stores do not survive one.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from celery.signals import celeryd_init, setup_logging, worker_process_init, worker_process_shutdown

from tracker import logs, wiring
from tracker.bell import celery_app
from tracker.settings import attach, load

settings = attach(load())
app = celery_app(settings.required("broker_url"))
app.conf.imports = ("workers.tasks",)

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
    return wiring.build(settings, application=f"tracker-worker-{os.getpid()}", pool=3)


@setup_logging.connect
def _logging(**_: Any) -> None:
    logs.configure(settings, process="worker")


@celeryd_init.connect
def _name_process(**_: Any) -> None:
    services.cache_clear()


@worker_process_init.connect
def _after_fork(**_: Any) -> None:
    services.cache_clear()


@worker_process_shutdown.connect
def _goodbye(**_: Any) -> None:
    if services.cache_info().currsize:
        services().close()
