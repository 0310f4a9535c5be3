"""Standard Webhooks 1.0 signatures (symmetric, `v1`), over bytes, for both sides: `sign` is ours, `verify` is the receiver's.

Source: the Standard Webhooks specification; its test vector stands in the tests.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

PREFIX = "whsec_"
TOLERANCE = 300.0
"""Seconds by which a timestamp may differ from the receiver's clock: what the specification's own libraries use."""
_SECRET_BYTES = 32


class SignatureError(ValueError):
    """The message was not signed with this secret, was altered, or is too old. Do not trust its body."""


def new_secret() -> str:
    """A fresh `whsec_` secret of 32 random bytes."""
    return PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def _key(secret: str) -> bytes:
    text = secret.removeprefix(PREFIX)
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError:
        raise SignatureError("the secret is not base64 after `whsec_`") from None
    if not key:
        # A receiver whose setting is empty would otherwise trust anyone: an empty key signs well.
        raise SignatureError("the secret is empty")
    return key


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """One signature, `v1,<base64>`, over `{id}.{timestamp}.{body}`; `timestamp` is Unix seconds of the attempt."""
    digest = hmac.new(_key(secret), f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def headers(signing_secrets: Iterable[str], message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a message; one signature for each secret that is valid now, so that rotation loses nothing."""
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(sign(secret, message_id, timestamp, body) for secret in signing_secrets),
    }


def _seconds(stamp: str) -> int:
    # Twelve digits reach past the year 30000; int() alone would also take blanks, signs, underscores and other scripts.
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):  # noqa: PLR2004
        raise ValueError(stamp)
    return int(stamp)


def verify(
    secret: str, received: Mapping[str, str], body: bytes, *, now: float, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    """The event in `body`, if it was signed with `secret` within `tolerance` seconds of `now` (Unix time); SignatureError otherwise.

    Header names are compared without regard to case; `body` must be the bytes as received.
    """
    found = {name.lower(): value for name, value in received.items()}
    try:
        message_id, stamp, signatures = (found[f"webhook-{part}"] for part in ("id", "timestamp", "signature"))
        timestamp = _seconds(stamp)
    except KeyError as missing:
        raise SignatureError(f"the header {missing.args[0]} is missing") from None
    except ValueError:
        raise SignatureError("webhook-timestamp is not a number") from None
    if abs(now - timestamp) > tolerance:
        raise SignatureError(
            f"webhook-timestamp is {abs(now - timestamp):.0f} s away from this clock (allowed: {tolerance:.0f} s)"
        )
    expected = sign(secret, message_id, timestamp, body).encode()
    if not any(hmac.compare_digest(expected, candidate.encode()) for candidate in signatures.split()):
        raise SignatureError("no signature matches: wrong secret, or the body was altered on its way")
    event: dict[str, Any] = json.loads(body)
    return event
