"""How many files and connections a long-lived process may have open."""

from __future__ import annotations

import resource
from contextlib import suppress

MOST = 65_536
"""More than any of our processes opens."""


def allow_many() -> None:
    """Raise this process's bound as far as the system lets it be raised without a privilege.

    The usual 1,024 are fewer than the connections of two batches of polls, and those beyond look like hosts that cannot be reached. They
    are that few for the sake of programs that call `select`, which none of ours does.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MOST:
        wanted = MOST if hard == resource.RLIM_INFINITY else max(soft, min(hard, MOST))
        with suppress(ValueError, OSError):  # some systems have a lower bound than they tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def share() -> int:
    """How many connections one of those may have that open many: an eighth of what the process may, since several are at work together."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST if soft == resource.RLIM_INFINITY else soft // 8
