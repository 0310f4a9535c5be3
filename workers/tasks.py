"""The tasks. Names are what Flower shows; arguments are ids only, and every task may be lost, doubled or late without harm."""

from __future__ import annotations

from uuid import UUID

from tracker import bell
from tracker.services.crew import patience
from tracker.services.polling import SHIFT
from tracker.store.batches import Bundle
from workers.app import Patient, app, services


@app.task(base=Patient, name="upkeep.tick", send_events=False)  # one a second would bury the story that Flower tells
def tick() -> None:
    """Beat's ring: notice time that did not count, ring for what is due, and dispatch polls."""
    services().upkeep.tick()
    services().polling.dispatch(stay=SHIFT)


@app.task(base=Patient, name=bell.DISPATCH)
def dispatch() -> None:
    """Something new may be due for polling."""
    services().polling.dispatch()


@app.task(base=Patient, name=bell.ASK)
def ask(batch: str, ids: str, fences: str) -> None:
    """Ask about one claimed batch. What hangs is left to a thread of this process, and the rest makes room for others."""
    key, claims = UUID(batch), Bundle(ids, fences)
    if not services().crew.see_through(lambda: services().polling.ask(key, claims), patience(claims.polls)):
        services().polling.make_room(key)


@app.task(base=Patient, name=bell.SEND)
def send() -> None:
    """Webhooks are due. What hangs longer than this is left to the process's own thread, so that the next ring finds somebody."""
    services().delivery.send_due(patience=0.2)


@app.task(base=Patient, name=bell.FETCH, soft_time_limit=9000, time_limit=9060)
def fetch() -> None:
    """Copies are wanted. The limit is a little more than a shift with its last download and the way into the store."""
    services().downloading.fetch_due()


@app.task(base=Patient, name=bell.SWEEP_COPIES, soft_time_limit=3500, time_limit=3560)
def sweep_copies() -> None:
    """Remove what the store and its disk need not hold; in the download queue, because that is where the disk is."""
    services().keeping.sweep()


@app.task(base=Patient, name="upkeep.fold-clocks", send_events=False)
def fold_clocks() -> None:
    """Merge what polls showed into the learned clocks."""
    services().upkeep.fold_clocks()


@app.task(base=Patient, name="upkeep.sweep")
def sweep() -> None:
    """Forget what has expired."""
    services().upkeep.sweep()
    # In the queue of those who have the disk; a message that waits longer than a sweep's period is void.
    services().bell.publish(bell.SWEEP_COPIES, bell.DOWNLOAD, [], shown="hourly", expires=3000)
