"""Counts of our own requests, for Prometheus. Labels are route patterns, so that their number stays small."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Histogram

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
"""Seconds. A wait of `Prefer: wait` ends at 60."""


class Requests:
    """One per application: tests run several in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._seconds = Histogram(
            "tracker_http_request_seconds", "Requests answered, by route", ["method", "route", "status"], buckets=BOUNDS,
            registry=self.registry,
        )  # fmt: skip

    def observe(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self._seconds.labels(method, route, str(status)).observe(seconds)
