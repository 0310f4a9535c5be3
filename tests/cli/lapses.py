"""Seconds that a command counts go on while a test runs, by more than one where the machine is busy."""

from __future__ import annotations

import re


def lapse(said: str, form: str) -> int:
    """The seconds in `said`, which holds `form` with a number for its `N`."""
    before, after = form.split("N")
    found = re.search(f"{re.escape(before)}([0-9]+){re.escape(after)}", said)
    assert found, f"{form!r} is not in {said!r}"
    return int(found[1])
