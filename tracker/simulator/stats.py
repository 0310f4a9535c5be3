"""What the simulator was asked, counted: by path, by id, by tenth of a second. Tests check schedules and budgets against it."""

from __future__ import annotations

import time
from array import array
from collections import Counter, deque

# Times are remembered for this many ids and for this many questions about each: enough for every test, while a benchmark
# with millions of generations must not fill the memory. Totals go on being counted beyond.
_IDS = 200_000
_TIMES = 1_000

# The rate's history covers an hour in tenths of a second.
_SLICES = 36_000
_SLICE = 0.1


class Stats:
    """Counters of one simulator since it started or was reset."""

    def __init__(self) -> None:
        self.in_flight = 0
        self.connections = 0
        self.reset()

    def reset(self) -> None:
        """Begin anew; what is open at this moment stays open and is counted as such."""
        self._began = time.monotonic()
        self.requests = 0
        self.paths: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.spoilt: Counter[str] = Counter()
        self.queries: dict[str, array[float]] = {}
        self.fetches: Counter[str] = Counter()
        self._slices: deque[list[int]] = deque(maxlen=_SLICES)
        self.most_in_flight = self.in_flight
        self.most_connections = self.connections

    def begin(self, path: str) -> None:
        self.requests += 1
        self.paths[path] += 1
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        number = int((time.monotonic() - self._began) / _SLICE)
        if self._slices and self._slices[-1][0] == number:
            self._slices[-1][1] += 1
        else:
            self._slices.append([number, 1])

    def end(self) -> None:
        self.in_flight -= 1

    def connected(self) -> None:
        self.connections += 1
        self.most_connections = max(self.most_connections, self.connections)

    def disconnected(self) -> None:
        self.connections -= 1

    def asked(self, task_id: str, now: float) -> int:
        """Note one question about a generation's state; returns how many there were before it."""
        times = self.queries.get(task_id)
        if times is None:
            if len(self.queries) >= _IDS:
                return 0
            times = self.queries[task_id] = array("d")
        before = len(times)
        if before < _TIMES:
            times.append(now)
        return before

    def fetched(self, path: str) -> int:
        """Note one download of a file; returns how many there were before it."""
        self.fetches[path] += 1
        return self.fetches[path] - 1

    def report(self, *, ids: bool) -> dict[str, object]:
        """Everything as JSON; without `ids` the per-id counts are left out, which are long after a benchmark."""
        found: dict[str, object] = {
            "seconds": round(time.monotonic() - self._began, 3),
            "requests": self.requests,
            "paths": dict(self.paths),
            "statuses": {str(status): count for status, count in sorted(self.statuses.items())},
            "spoilt": dict(self.spoilt),
            "in_flight": self.in_flight,
            "most_in_flight": self.most_in_flight,
            "connections": self.connections,
            "most_connections": self.most_connections,
            "history": [[number / 10, count] for number, count in self._slices],
        }
        if ids:
            found["queries"] = {task_id: len(times) for task_id, times in self.queries.items()}
            found["fetches"] = dict(self.fetches)
        return found
