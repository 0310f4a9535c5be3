"""How this installation fares: readiness, the operator's figures, and the switches."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from tracker import bell
from tracker.store import db, figures, lateness, migrations, ready, switches, taking
from tracker.store.db import Database
from tracker.store.lateness import Lane, Lease

TICK = "tick"
"""Name of the heartbeat that the tick leaves."""
TICK_LATE = 10.0
"""Seconds without a tick after which nothing is scheduled any more: ten ticks in a row were missed."""


class Health:
    """Reads; only the switches write."""

    def __init__(self, database: Database, bell_: bell.Bell) -> None:
        self._database, self._bell = database, bell_

    def ready(self) -> dict[str, Any]:
        """`ready` (database and schema), `healthy` (everything), and what both are made of. Raises what the database raises."""
        with self._database.transaction() as tx:
            migrations.refuse_other_schema(tx)
            now = db.now(tx)
            tick = db.last_beat(tx, TICK)
            lag, stopped = ready.lag(tx, now), switches.stopped(tx)
            untaken = taking.untaken(tx, now)
        age = None if tick is None else (now - tick).total_seconds()
        reachable = self._bell.reachable()
        healthy = all(reachable.values()) and age is not None and age < TICK_LATE and untaken is None
        return {
            "ready": True, "healthy": healthy, **reachable, "tick_age": age, "lag": lag, "untaken": untaken, "stopped": stopped,
        }  # fmt: skip

    def figures(self) -> dict[str, list[tuple[dict[str, str], float]]]:
        """Gauges by name, each with its labels, read from the database in one place."""
        with self._database.transaction() as tx:
            return figures.gauges(tx, db.now(tx))

    def accounts(self, credential_id: int | None = None) -> list[Lane]:
        """How late the polls of each provider account are, and what holds them back."""
        with self._database.transaction() as tx:
            return lateness.accounts(tx, db.now(tx), credential_id)

    def receivers(self) -> list[Lane]:
        """The same of every webhook receiver that anything is due for."""
        with self._database.transaction() as tx:
            return lateness.receivers(tx, db.now(tx))

    def lease(self, generation_id: UUID) -> Lease | None:
        """The claim that a generation is being asked about under, if it is."""
        with self._database.transaction() as tx:
            return lateness.lease(tx, generation_id, db.now(tx))

    def stop(self, name: str, reason: str) -> None:
        """Stop `polls`, `webhooks` or `downloads` for the whole installation."""
        with self._database.transaction() as tx:
            switches.stop(tx, name, reason, db.now(tx))

    def resume(self, name: str) -> bool:
        """Let it go on; False when it was not stopped."""
        with self._database.transaction() as tx:
            resumed = switches.resume(tx, name)
        for task, queue in ((bell.DISPATCH, bell.DEFAULT), (bell.SEND, bell.WEBHOOK), (bell.FETCH, bell.DOWNLOAD)):
            self._bell.ring(task, queue, because=f"{name} resumed")
        return resumed

    def stopped(self) -> dict[str, str]:
        """What is stopped, with the reason."""
        with self._database.transaction() as tx:
            return switches.stopped(tx)
