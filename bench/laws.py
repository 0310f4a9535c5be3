"""How long generations take, as a law per model, and the best schedule that somebody could have who knew that law.

Only means and a few samples are published; the shapes are assumed: a queue, a lognormal generation, a slow tail, early rejections, and
a few that never end. The parameters were fitted to the published means with plausible quantiles (p50, p95, p99 in the comments).
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from math import erf, exp, log, sqrt

GRID = 0.25
"""Seconds between two candidate moments of the optimum."""
HORIZON = 3600.0
"""Seconds after which everybody gives up, the optimum included."""
FAST = (2.0, 20.0)
"""Seconds between which early rejections lie, evenly."""


@dataclass(frozen=True, slots=True)
class Law:
    """`queue` is an exponential's mean; `median` and `sigma` are the lognormal's; shares are of all tasks, `factor` stretches the slow."""

    name: str
    queue: float
    median: float
    sigma: float
    fast: float
    slow: float
    factor: float
    never: float

    def draw(self, dice: random.Random) -> float:
        """How long one task takes, in seconds; infinite for one that never ends."""
        if dice.random() < self.never:
            return float("inf")
        if dice.random() < self.fast:
            return dice.uniform(*FAST)
        stretch = self.factor * dice.uniform(0.6, 1.4) if dice.random() < self.slow else 1.0
        return dice.expovariate(1 / self.queue) + self.median * stretch * exp(dice.gauss(0.0, self.sigma))

    def ended_by(self) -> list[float]:
        """The share that has ended by each moment of the grid, up to the horizon."""
        steps = int(HORIZON / GRID)
        stays = exp(-GRID / self.queue)  # the queue is an exponential, so the convolution is a filter of one step
        shares, waiting, before, slow_or_not = [0.0], 0.0, 0.0, 0.0
        for step in range(1, steps + 1):
            at = step * GRID
            made = self._generated_by(at)
            waiting = (waiting + made - before) * stays
            slow_or_not, before = made - waiting, made
            early = min(1.0, max(0.0, (at - FAST[0]) / (FAST[1] - FAST[0])))
            shares.append((1 - self.never) * (self.fast * early + (1 - self.fast) * slow_or_not))
        return shares

    def _generated_by(self, seconds: float) -> float:
        stretches = [self.factor * (0.64 + 0.08 * i) for i in range(10)]
        usual = self._normal(seconds, 1.0)
        return (1 - self.slow) * usual + self.slow * sum(self._normal(seconds, one) for one in stretches) / 10

    def _normal(self, seconds: float, stretch: float) -> float:
        return 0.5 * (1 + erf(log(seconds / (self.median * stretch)) / (self.sigma * sqrt(2))))


LAWS = (
    Law("luma-ray2", 37.7, 65.5, 0.22, 0.019, 0.024, 6.4, 0.004),  # mean 111 s; 96, 206, 479
    Law("kling-std", 64.3, 206.3, 0.30, 0.060, 0.057, 5.5, 0.0084),  # mean 320 s; 257, 710, 1578
    Law("kling-turbo", 7.0, 38.9, 0.20, 0.010, 0.028, 2.5, 0.002),  # mean 48 s; 45, 70, 113
    Law("runway-gen4-turbo", 23.0, 23.8, 0.25, 0.026, 0.044, 9.0, 0.003),  # mean 55 s; 41, 130, 293
    Law("runway-gen4", 34.3, 162.7, 0.35, 0.024, 0.068, 5.0, 0.005),  # mean 252 s; 192, 624, 1258
    Law("suno", 17.8, 90.1, 0.25, 0.040, 0.011, 6.7, 0.005),  # mean 112 s; 106, 166, 301
    Law("veo3", 27.0, 37.0, 0.30, 0.020, 0.030, 4.0, 0.002),  # mean 69 s; 58, 145, 279
    Law("sora2", 32.1, 141.3, 0.35, 0.010, 0.062, 4.3, 0.008),  # mean 209 s; 178, 447, 931
)


def optimum(ended: list[float], price: float) -> list[float]:
    """When to look, in seconds, for the least `price` x looks + delay that is possible for somebody who knows the law.

    Dynamic programming over the grid. Looking next at j after i costs, beside what follows, alive(i) x price + integral of (F - F(i)); as
    a function of F(i) that is a line for each j, so the best j comes from a lower envelope, and the whole from one pass.
    """
    steps = len(ended) - 1
    gathered = [0.0]
    for before, after in pairwise(ended):
        gathered.append(gathered[-1] + GRID * (before + after) / 2)
    cost, chosen = [0.0] * (steps + 1), [steps] * (steps + 1)
    envelope: deque[tuple[float, float, int]] = deque()  # (moment, intercept, j): the line intercept - F(i) x moment
    for i in range(steps - 1, -1, -1):
        _add(envelope, ((i + 1) * GRID, gathered[i + 1] + cost[i + 1], i + 1))
        x = ended[i]
        while len(envelope) > 1 and envelope[1][1] - x * envelope[1][0] <= envelope[0][1] - x * envelope[0][0]:
            envelope.popleft()
        moment, intercept, chosen[i] = envelope[0]
        cost[i] = (1 - x) * price + intercept - x * moment - gathered[i] + x * i * GRID
    looks, i = [], 0
    while i < steps:
        i = chosen[i]
        looks.append(i * GRID)
    return looks


def _add(envelope: deque[tuple[float, float, int]], line: tuple[float, float, int]) -> None:
    """Put a line with a smaller moment at the end, and drop those that are nowhere the lowest any more."""
    while len(envelope) > 1:
        (m1, b1, _), (m2, b2, _), (m3, b3, _) = envelope[-2], envelope[-1], line
        # The middle line is needless where the outer two cross no later than it is reached.
        if (b3 - b1) * (m1 - m2) > (b2 - b1) * (m1 - m3):
            break
        envelope.pop()
    envelope.append(line)
