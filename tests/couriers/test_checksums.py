"""Which promises of servers are believed, and which only look like one."""

from __future__ import annotations

import base64
import hashlib
import zlib

import pytest

from tracker.couriers.checksums import promised

BODY = b"some film"
MD5 = hashlib.md5(BODY, usedforsecurity=False)
SHA = base64.b64encode(hashlib.sha256(BODY).digest()).decode()
S3 = {"x-amz-request-id": "1"}


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ({"content-md5": b64(MD5.digest())}, "md5"),
        ({"x-goog-hash": f"crc32c=AAAAAA==,md5={b64(MD5.digest())}"}, "md5"),
        ({"x-goog-hash": f"md5={b64(MD5.digest())}, crc32c=AAAAAA=="}, "md5"),
        ({"etag": f'"{MD5.hexdigest()}"', **S3}, "md5"),
        ({"etag": f'"{MD5.hexdigest()}"', "server": "AmazonS3", "x-amz-server-side-encryption": "AES256"}, "md5"),
        ({"x-amz-checksum-sha256": SHA}, "sha-256"),
        ({"repr-digest": f"sha-256=:{SHA}:"}, "sha-256"),
        ({"digest": f"SHA-256={SHA}"}, "sha-256"),
        ({"x-amz-checksum-sha1": b64(hashlib.sha1(BODY, usedforsecurity=False).digest())}, "sha-1"),
        ({"x-amz-checksum-crc32": b64(zlib.crc32(BODY).to_bytes(4))}, "crc32"),
        ({"content-md5": b64(bytes(16)), "x-amz-checksum-sha256": SHA}, "sha-256"),
    ],
)
def test_a_promise_is_kept_or_broken(headers, name):
    for content, kept in ((BODY, True), (BODY + b"!", False)):
        promise = promised(headers, whole=True)
        assert promise is not None
        assert promise.name == name
        promise.update(content[:4])
        promise.update(content[4:])
        assert promise.kept is kept


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"etag": f'"{MD5.hexdigest()}"'},  # not known to be S3's
        {"etag": f'"{MD5.hexdigest()}-3"', **S3},  # of several parts
        {"etag": f'"{MD5.hexdigest()}"', **S3, "x-amz-server-side-encryption": "aws:kms"},
        {"etag": f'"{MD5.hexdigest()}"', **S3, "x-amz-server-side-encryption-customer-algorithm": "AES256"},
        {"content-md5": "not base64"},
        {"content-md5": b64(b"short")},
        {"x-amz-checksum-sha256": f"{SHA}-3"},  # a checksum of checksums
        {"digest": "crc32c=AAAAAA=="},
    ],
)
def test_what_only_looks_like_a_promise(headers):
    assert promised(headers, whole=True) is None


def test_the_md5_of_a_part_says_nothing_about_the_file():
    assert promised({"content-md5": b64(MD5.digest())}, whole=False) is None
    assert promised({"x-amz-checksum-sha256": SHA}, whole=False) is not None
