from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook, WebhookVerificationError

from tracker.core import signing
from tracker.core.signing import SignatureError, headers, new_secret, sign, verify

SECRET, OLD = new_secret(), new_secret()
BODY = json.dumps(
    {"type": "ping", "timestamp": "2026-01-01T00:00:00Z", "data": {"prompt": "猫が踊る"}}, ensure_ascii=False
).encode()
STAMP = 1_767_225_600
bodies = st.dictionaries(st.text(max_size=9), st.text(max_size=20) | st.integers() | st.none(), max_size=4).map(
    lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
)

VECTORS = [
    # The specification's own.
    (
        "whsec_plJ3nmyCDGBKInavdOK15jsl",
        "msg_loFOjxBNrRLzqYUf",
        1731705121,
        b'{"event_type":"ping","data":{"success":true}}',
        "v1,rAvfW3dJ/X/qxhsaXPOyyCGmRKsaKWcsNccKXlIktD0=",
    ),
    # Kling's, from its page on callbacks.
    (
        "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI=",
        "9876543210",
        1781080794,
        b'{"id":"1234567890","status":"succeeded","message":"","create_time":1781080778802,"update_time":1781080794151}',
        "v1,UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4=",
    ),
]


@pytest.mark.parametrize(
    ("secret", "message_id", "stamp", "body", "signature"), VECTORS, ids=["specification", "kling"]
)
def test_published_vectors(secret: str, message_id: str, stamp: int, body: bytes, signature: str) -> None:
    assert sign(secret, message_id, stamp, body) == signature
    received = {"webhook-id": message_id, "webhook-timestamp": str(stamp), "webhook-signature": signature}
    assert verify(secret, received, body, now=stamp) == json.loads(body)


def test_a_secret_has_the_prescribed_form() -> None:
    assert SECRET != OLD
    assert SECRET.startswith("whsec_")
    assert 24 <= len(base64.b64decode(SECRET.removeprefix("whsec_"), validate=True)) <= 64


@given(body=bodies)
def test_the_independent_library_accepts_what_we_sign(body: bytes) -> None:
    sent = headers([SECRET], "evt_1", int(time.time()), body)
    assert Webhook(SECRET).verify(body, sent) == json.loads(body)


@given(body=bodies)
def test_we_accept_what_the_independent_library_signs(body: bytes) -> None:
    # Its sign() takes the wall time of the datetime as UTC, and text only.
    signature = Webhook(SECRET).sign("msg_1", datetime.fromtimestamp(STAMP, UTC), body.decode())
    received = {"Webhook-Id": "msg_1", "Webhook-Timestamp": str(STAMP), "Webhook-Signature": signature}
    assert verify(SECRET, received, body, now=STAMP + 10) == json.loads(body)


def test_while_a_rotation_overlaps_either_secret_verifies_on_both_sides() -> None:
    now = int(time.time())
    sent = headers([SECRET, OLD], "evt_1", now, BODY)
    assert len(sent["webhook-signature"].split(" ")) == 2
    for secret in (SECRET, OLD):
        assert Webhook(secret).verify(BODY, sent)["type"] == "ping"
        assert verify(secret, sent, BODY, now=now)["type"] == "ping"
    stranger = new_secret()
    with pytest.raises(WebhookVerificationError):
        Webhook(stranger).verify(BODY, sent)
    with pytest.raises(SignatureError, match="no signature matches"):
        verify(stranger, sent, BODY, now=now)


def test_signatures_of_other_versions_are_passed_over() -> None:
    sent = headers([SECRET], "evt_1", STAMP, BODY)
    mixed = "v1a,bm90IG91cnM= v2," + sent["webhook-signature"][3:] + " " + sent["webhook-signature"]
    assert verify(SECRET, sent | {"webhook-signature": mixed}, BODY, now=STAMP)
    relabelled = sent["webhook-signature"].replace("v1,", "v1a,")
    with pytest.raises(SignatureError):
        verify(SECRET, sent | {"webhook-signature": relabelled}, BODY, now=STAMP)


@pytest.mark.parametrize(
    "change",
    [
        {"webhook-id": "evt_2"},
        {"webhook-timestamp": str(STAMP + 1)},
        {"webhook-signature": ""},
        {"webhook-signature": "v1,é"},
    ],
)
def test_whatever_is_altered_is_refused(change: dict[str, str]) -> None:
    sent = headers([SECRET], "evt_1", STAMP, BODY)
    with pytest.raises(SignatureError, match="no signature matches"):
        verify(SECRET, sent | change, BODY, now=STAMP)


def test_the_body_counts_to_the_byte() -> None:
    sent = headers([SECRET], "evt_1", STAMP, BODY)
    rewritten = json.dumps(json.loads(BODY)).encode()
    assert json.loads(rewritten) == json.loads(BODY)
    with pytest.raises(SignatureError):
        verify(SECRET, sent, rewritten, now=STAMP)


@pytest.mark.parametrize("away", [-301, 301, 10**9])
def test_a_message_far_from_now_is_refused(away: int) -> None:
    sent = headers([SECRET], "evt_1", STAMP, BODY)
    with pytest.raises(SignatureError, match="away from this clock"):
        verify(SECRET, sent, BODY, now=STAMP + away)
    assert verify(SECRET, sent, BODY, now=STAMP + 300)
    assert verify(SECRET, sent, BODY, now=STAMP + away, tolerance=2 * abs(away))


@pytest.mark.parametrize("stamp", ["", "soon", "1e9", "17672256_00", "-5", "²", "9" * 400, "1767225600.5", "٣"])
def test_an_odd_timestamp_is_refused(stamp: str) -> None:
    with pytest.raises(SignatureError, match="not a number"):
        verify(SECRET, {**headers([SECRET], "evt_1", STAMP, BODY), "webhook-timestamp": stamp}, BODY, now=STAMP)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(name: str) -> None:
    sent = headers([SECRET], "evt_1", STAMP, BODY)
    del sent[name]
    with pytest.raises(SignatureError, match=f"{name} is missing"):
        verify(SECRET, sent, BODY, now=STAMP)


@pytest.mark.parametrize("secret", ["", "whsec_"])
def test_an_empty_secret_trusts_nobody(secret: str) -> None:
    forged = (
        "v1," + base64.b64encode(hmac.new(b"", f"evt_1.{STAMP}.".encode() + BODY, hashlib.sha256).digest()).decode()
    )
    received = {"webhook-id": "evt_1", "webhook-timestamp": str(STAMP), "webhook-signature": forged}
    with pytest.raises(SignatureError, match="the secret is empty"):
        verify(secret, received, BODY, now=STAMP)


@pytest.mark.parametrize("secret", ["whsec_***", "whsec_é", "whsec_YQ==YQ=="])
def test_a_secret_that_is_not_base64_says_so_without_showing_itself(secret: str) -> None:
    with pytest.raises(SignatureError, match="not base64") as caught:
        sign(secret, "evt_1", STAMP, BODY)
    assert secret not in str(caught.value)


def test_a_secret_without_padding_or_prefix_works_as_in_the_library() -> None:
    bare = SECRET.removeprefix(signing.PREFIX).rstrip("=")
    assert sign(bare, "evt_1", STAMP, BODY) == sign(SECRET, "evt_1", STAMP, BODY)


@given(
    received=st.dictionaries(
        st.sampled_from(["webhook-id", "WEBHOOK-TIMESTAMP", "webhook-timestamp", "webhook-signature"]),
        st.text(max_size=12),
    )
)
def test_strange_headers_are_signature_errors(received: dict[str, str]) -> None:
    with pytest.raises(SignatureError, match=re.compile("webhook-|signature")):
        verify(SECRET, received, BODY, now=STAMP)
