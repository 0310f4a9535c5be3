"""The operator's gauges, each one cheap query over small tables or indexes."""

from __future__ import annotations

from datetime import datetime

from tracker.store import ready, taking
from tracker.store.db import Transaction, text

Gauges = dict[str, list[tuple[dict[str, str], float]]]

_COUNTED = {
    "tracker_generations": "SELECT provider, state, count(*)::float8 AS value FROM generations GROUP BY 1, 2 ORDER BY 1, 2",
    "tracker_deliveries": "SELECT state, count(*)::float8 AS value FROM deliveries GROUP BY 1 ORDER BY 1",
    "tracker_artifacts": "SELECT state, count(*)::float8 AS value FROM artifacts GROUP BY 1 ORDER BY 1",
    "tracker_credentials": "SELECT state, count(*)::float8 AS value FROM credentials GROUP BY 1 ORDER BY 1",
    "tracker_polls_scheduled": "SELECT count(*)::float8 AS value FROM polls",
    "tracker_polls_failing": "SELECT count(*)::float8 AS value FROM polls WHERE failures > 0",
    "tracker_webhook_oldest_due_seconds": (
        "SELECT coalesce(max(extract(epoch FROM :now - due_at)), 0)::float8 AS value FROM deliveries"
        " WHERE state = 'pending' AND due_at <= :now AND (lease_until IS NULL OR lease_until <= :now)"
    ),
    "tracker_download_oldest_due_seconds": (
        "SELECT coalesce(max(extract(epoch FROM :now - due_at)), 0)::float8 AS value FROM artifacts"
        " WHERE state = 'pending' AND due_at <= :now"
    ),
}


def gauges(tx: Transaction, now: datetime) -> Gauges:
    """Every gauge by name, with labels and value."""
    found: Gauges = {}
    for name, query in _COUNTED.items():
        rows = tx.execute(text(query), {"now": now} if ":now" in query else {}).mappings()
        found[name] = [({k: str(v) for k, v in row.items() if k != "value"}, float(row["value"])) for row in rows]
    found["tracker_poll_lag_seconds"] = [({}, ready.lag(tx, now))]
    found["tracker_poll_untaken_seconds"] = [({}, taking.untaken(tx, now) or 0.0)]
    return found
