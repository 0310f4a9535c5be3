"""Three seeds of disasters, each process killed at least five times in the middle of its work; prints a table."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from tests.journeys.conftest import Receiver, Simulator
from tests.journeys.installation import VICTIMS, Installation
from tests.journeys.verdict import check

TIMES = 5
LONGER_THAN_A_LEASE = 50.0
"""Seconds: deliveries and downloads are claimed for 45."""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("seed", "sleeper"), [(1, "poll"), (2, "webhook"), (3, "download")])
def test_chaos(  # noqa: PLR0917 - what it needs
    seed: int,
    sleeper: str,
    tmp_path: Path,
    simulator: Simulator,
    receiver: Receiver,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dice = random.Random(seed)
    with Installation(tmp_path, simulator, receiver).running() as world:
        _disasters(world, dice, sleeper)
        world.settle(180)
        figures = check(world)
    with capsys.disabled():
        print(_table(seed, world, figures))


def _disasters(world: Installation, dice: random.Random, sleeper: str) -> None:
    blows = [*VICTIMS * TIMES, *["FLUSHALL"] * TIMES]
    dice.shuffle(blows)
    after = dice.randrange(len(blows) // 2)
    frozen: threading.Thread | None = None
    for number, blow in enumerate(blows):
        world.register(dice.randint(2, 8), duration=dice.uniform(1, 5))
        if number == after:
            world.register(8, duration=1)
            frozen = threading.Thread(target=world.freeze, args=(sleeper, LONGER_THAN_A_LEASE))
            frozen.start()
        if frozen and frozen.is_alive() and blow == sleeper:
            frozen.join()
        world.flush() if blow == "FLUSHALL" else world.kill(blow)
    if frozen:
        frozen.join()


def _table(seed: int, world: Installation, figures: dict[str, int]) -> str:
    tally = world.tally
    kills = ", ".join(f"{name} {count}" for name, count in sorted(tally.kills.items()))
    rows = {"seed": seed, "killed": kills, **figures, "calls refused meanwhile": tally.refused,
            "committed and unheard": tally.unheard, "settled after": f"{tally.settled_in:.0f} s"}  # fmt: skip
    return "\n" + "\n".join(f"{name:<24} {value}" for name, value in rows.items())
