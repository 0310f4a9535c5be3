"""How a long-lived process collects its garbage: seldom, and never among what its imports made."""

from __future__ import annotations

import gc

COLLECT = (50_000, 20, 100)
"""How many objects more than have gone call for a look at the youngest, and how many such looks for one at the older ones."""


def settle() -> None:
    """Called once, when a process is ready to work (and behind a fork).

    What exists now stays for ever, and a batch makes thousands of tuples that hold no cycle: looking through all of them again and
    again took a third of the CPU of polling, and a full look keeps everybody waiting for some 50 ms (measured).
    """
    gc.freeze()
    gc.set_threshold(*COLLECT)
