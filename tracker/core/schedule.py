"""When to poll: the waiting-price rule over a learned clock.

A task is asked about again when the waiting that it has probably already suffered unseen is worth one request: at the first t with
the integral of [hazard(u) - hazard(a)] from the last look a equal to `price`, the seconds of waiting that one request is worth.
A constant interval is optimal only for memoryless durations; every bit of shape in the law is gain.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import exp, expm1, inf, log, sqrt

BUCKETS = 64
EDGES: list[float] = [0.0] + [2.0 * 1800.0 ** (i / (BUCKETS - 1)) for i in range(BUCKETS)]
"""65 edges of 64 age buckets in seconds: 0, then 2 s to 1 h, evenly spaced in the logarithm."""
MEMORY = 300.0
"""Tasks remembered: 100 forgets a slow-down sooner, 1000 costs a few per cent less when nothing drifts."""
DAY = 86_400.0
"""Seconds. No `longest` may be longer."""
PRIOR = 0.2
"""Weight, in events per bucket, of the cold-start guess (a hazard of 1 / (30 s + age))."""


def _zeros() -> list[float]:
    return [0.0] * BUCKETS


@dataclass(slots=True)
class Clock:
    """How long the tasks of one (provider, model) take: a hazard per age bucket, learned from every poll.

    `events` counts ends seen and `exposure` seconds watched, per bucket; a failed request is no observation.
    """

    events: list[float] = field(default_factory=_zeros)
    exposure: list[float] = field(default_factory=_zeros)
    memory: float = MEMORY
    prior: float = PRIOR

    def hazard(self, bucket: int) -> float:
        """Ends per second at ages of this bucket, the cold-start guess included."""
        return (self.events[bucket] + self.prior) / (self.exposure[bucket] + self.prior * (30 + EDGES[bucket]))

    def walk(self, a: float, b: float) -> Iterator[tuple[int, float, float]]:
        """The ages a to b as (bucket, hazard, seconds)."""
        a = max(a, 0.0)  # a submit time may lie slightly ahead of our clock
        i = min(BUCKETS - 1, bisect(EDGES, a) - 1)
        while a < b:
            end = b if i == BUCKETS - 1 else min(b, EDGES[i + 1])
            yield i, self.hazard(i), end - a
            a, i = end, min(BUCKETS - 1, i + 1)

    def next_gap(self, age: float, price: float, longest: float) -> float:
        """Seconds until the next poll of a task seen pending at `age`; at most `longest`."""
        doubt = waited = 0.0  # the hazard gathered since the last look, which is about the odds that it is done
        for _, h, w in self.walk(age, age + longest):
            x = (sqrt(doubt * doubt + 2 * h * price) - doubt) / h  # the price is reached x seconds further on
            if x <= w:
                return waited + x
            price -= w * (doubt + h * w / 2)
            doubt, waited = doubt + h * w, waited + w
        return longest

    def gaps(self, price: float) -> list[float]:
        """`next_gap` at each of the 65 edges: what the claim interpolates in SQL, and bounds, since bounds differ."""
        return [self.next_gap(edge, price, DAY) for edge in EDGES]

    def observe(self, a: float, b: float, *, done: bool) -> None:
        """A poll at age b answered; the look before, at age a, had said pending (0 when there was none).

        The one end is spread over (a, b] as we believe it fell there, so that interval censoring does not bias the clock.
        """
        for i, passed, ended, watched in self.evidence(a, b, done=done):
            keep = max(0.0, 1 - passed / self.memory)
            self.events[i] = self.events[i] * keep + ended
            self.exposure[i] = self.exposure[i] * keep + watched

    def evidence(self, a: float, b: float, *, done: bool) -> list[tuple[int, float, float, float]]:
        """What such a poll shows, as (bucket, tasks that passed through it, ends, seconds watched): to store and merge later."""
        if not done:
            return passage(a, b)
        pieces, alive, left = list(self.walk(a, b)), 1.0, 1.0
        total = -expm1(-sum(h * w for _, h, w in pieces))
        if not total:
            return []  # what was watched for no time at all, or too short a time for floating point, shows nothing
        shown = []
        for i, h, w in pieces:
            ended = -left * expm1(-h * w) / total
            shown.append((i, alive * w / (EDGES[i + 1] - EDGES[i]), ended, w * (alive - ended / 2)))
            alive, left = alive - ended, left * exp(-h * w)
        return shown

    def merge(self, passages: list[float], events: list[float], exposure: list[float]) -> None:
        """Fold deltas of many polls in; each passage of a task through a bucket ages that bucket by 1 / memory."""
        for i in range(BUCKETS):
            keep = (1 - 1 / self.memory) ** passages[i]
            self.events[i] = self.events[i] * keep + events[i]
            self.exposure[i] = self.exposure[i] * keep + exposure[i]

    def expected_remaining(self, age: float, horizon: float = 6 * 3600.0) -> float:
        """Expected seconds until the end of a task pending at `age`, looking no further than `horizon`."""
        total, alive = 0.0, 1.0
        for _, h, w in self.walk(age, age + horizon):
            total += alive * -expm1(-h * w) / h
            alive *= exp(-h * w)
        return total

    def survival(self, age: float) -> float:
        """The share of tasks that is still pending at `age`."""
        return exp(-sum(h * w for _, h, w in self.walk(0.0, age)))

    def ended_by(self, share: float) -> float:
        """The age at which this share of the tasks has ended: 0.5 gives the median."""
        left, age = -log(1 - share), 0.0
        for bucket, h, w in self.walk(0.0, inf):
            if h * w >= left or bucket == BUCKETS - 1:
                return age + left / h
            left, age = left - h * w, age + w
        raise AssertionError("the last bucket has no end")  # pragma: no cover

    def gain_limit(self) -> float:
        """How many times fewer polls than a fixed interval the best schedule of this clock can need at equal mean delay.

        It is E[T] / J^2, with J the integral of sqrt(density x survival).
        """
        mean, j, alive = 0.0, 0.0, 1.0
        for _, h, w in self.walk(0.0, EDGES[-1]):
            after = alive * exp(-h * w)
            mean += (alive - after) / h
            j += sqrt(h) * (alive - after) / h
            alive = after
        return mean / (j * j)


class Evidence:
    """What many polls show of one clock, summed up per bucket: to store and merge later.

    A task that stays pending passes whole buckets but for the first and the last: only those two are touched for each poll, thousands of
    which come in a second, and the whole ones in between are counted when all is added up.
    """

    __slots__ = ("_ended", "_entered", "_within")

    def __init__(self) -> None:
        self._within = _zeros()  # seconds, of which whole buckets are left out
        self._entered = [0] * BUCKETS  # how many more tasks pass whole buckets from here on
        self._ended: dict[int, list[float]] = {}

    def pending(self, a: float, b: float) -> None:
        """A task was seen pending at age b, the look before was at age a: `passage`, summed up."""
        if b <= a:
            return
        first, last = bisect(EDGES, a, 1, BUCKETS) - 1, bisect(EDGES, b, 1, BUCKETS) - 1
        within = self._within
        within[first] -= a - EDGES[first]
        within[last] += b - EDGES[last]
        if first != last:
            self._entered[first] += 1
            self._entered[last] -= 1

    def add(self, shown: Iterable[tuple[int, float, float, float]]) -> None:
        """Further evidence, as `Clock.evidence` gives it."""
        for bucket, *values in shown:
            self._ended[bucket] = [x + y for x, y in zip(self._ended.get(bucket, (0.0, 0.0, 0.0)), values, strict=True)]

    def sums(self) -> list[tuple[int, float, float, float]]:
        """All of it as (bucket, passages, ends, seconds watched), of the buckets that were touched."""
        shown, through = [], 0
        for bucket in range(BUCKETS):
            through += self._entered[bucket]
            width = EDGES[bucket + 1] - EDGES[bucket]
            pending = max(0.0, self._within[bucket] + through * width)
            passed, ended, watched = self._ended.get(bucket, (0.0, 0.0, 0.0))
            if pending or watched:
                shown.append((bucket, pending / width + passed, ended, pending + watched))
        return shown


def passage(a: float, b: float) -> list[tuple[int, float, float, float]]:
    """The evidence of a task that was pending all the way from age a to age b: what nearly every poll shows."""
    a = max(a, 0.0)
    i = min(BUCKETS - 1, bisect(EDGES, a) - 1)
    shown = []
    while a < b:
        end = b if i == BUCKETS - 1 else min(b, EDGES[i + 1])
        shown.append((i, (end - a) / (EDGES[i + 1] - EDGES[i]), 0.0, end - a))
        a, i = end, min(BUCKETS - 1, i + 1)
    return shown


def position(age: float) -> float:
    """Where `age` lies among EDGES, as a fractional index: the closed form that the claim uses in SQL."""
    if age < EDGES[1]:
        return max(age, 0.0) / EDGES[1]
    return min(1 + (BUCKETS - 1) * log(age / EDGES[1]) / log(1800), float(BUCKETS))
