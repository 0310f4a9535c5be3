"""What the tests of the guarded session have in common."""

from __future__ import annotations

import pytest

from tracker.core.addresses import Policy
from tracker.net.failures import NetError
from tracker.net.guard import GuardedSession

LOOPBACK = Policy.of(["127.0.0.0/8", "::1/128"])


def read_all(reply) -> bytes:
    with reply:
        return b"".join(iter(lambda: reply.read(65536), b""))


def refused(session: GuardedSession, url: str, **fields) -> NetError:
    with pytest.raises(NetError) as caught:
        read_all(session.open("GET", url, **{"deadline": 5.0} | fields))
    return caught.value
