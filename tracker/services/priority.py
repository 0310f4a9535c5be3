"""Which threads come first on a busy machine: webhooks and API calls, which people wait for; then polls; then downloads."""

from __future__ import annotations

import contextlib
import os
import threading

POLLS, DOWNLOADS = 5, 10
"""Niceness: 0 is everybody's, 19 the most patient."""


def give_way(nice: int) -> None:
    """Let this thread come after others. Where the system takes no thread's id (Linux alone does) nothing happens."""
    with contextlib.suppress(OSError, AttributeError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
