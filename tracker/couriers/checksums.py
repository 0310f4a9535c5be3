"""What a server promises about a file's content in its headers, checked while the bytes pass.

Never trusts what only looks like a hash: an ETag is one only where an S3 store says that it is.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import zlib
from collections.abc import Mapping
from typing import Protocol

_HEX_MD5 = re.compile(r'"([0-9a-fA-F]{32})"', re.ASCII)
_DIGEST = re.compile(r"sha-256=:?([A-Za-z0-9+/=]+):?", re.ASCII | re.IGNORECASE)


class _Hash(Protocol):
    def update(self, content: bytes, /) -> None: ...
    def digest(self) -> bytes: ...


class _Crc32:
    """S3's form of it: four bytes, the greatest first."""

    def __init__(self) -> None:
        self._sum = 0

    def update(self, content: bytes, /) -> None:
        self._sum = zlib.crc32(content, self._sum)

    def digest(self) -> bytes:
        return self._sum.to_bytes(4)


class Promise:
    """The strongest hash that was promised, and the same hash over what came."""

    def __init__(self, name: str, wanted: bytes, running: _Hash) -> None:
        self.name = name
        self._wanted, self._running = wanted, running

    def update(self, content: bytes) -> None:
        self._running.update(content)

    @property
    def kept(self) -> bool:
        return self._running.digest() == self._wanted


def promised(headers: Mapping[str, str], *, whole: bool) -> Promise | None:
    """What the headers promise about the whole file; `whole` is False for the answer to a Range, whose Content-MD5 is its part's."""
    found = {
        "sha-256": headers.get("x-amz-checksum-sha256") or _digest(headers, whole=whole),
        "md5": (headers.get("content-md5") if whole else None) or _goog(headers, "md5") or _etag(headers),
        "sha-1": headers.get("x-amz-checksum-sha1"),
        "crc32": headers.get("x-amz-checksum-crc32"),
    }
    for name, make, size in _KNOWN:
        wanted = _bytes(found[name] or "", size)
        if wanted is not None:
            return Promise(name, wanted, make())
    return None


def _md5() -> _Hash:
    return hashlib.md5(usedforsecurity=False)


def _sha1() -> _Hash:
    return hashlib.sha1(usedforsecurity=False)


_KNOWN = (("sha-256", hashlib.sha256, 32), ("md5", _md5, 16), ("sha-1", _sha1, 20), ("crc32", _Crc32, 4))


def _bytes(value: str, size: int) -> bytes | None:
    # A multipart upload's checksum of checksums has `-parts` behind it: it is of no use here.
    try:
        decoded = base64.b64decode(value.strip(), validate=True)
    except (binascii.Error, ValueError):
        return None
    return decoded if len(decoded) == size else None


def _digest(headers: Mapping[str, str], *, whole: bool) -> str | None:
    said = headers.get("repr-digest") or headers.get("digest") or (headers.get("content-digest") if whole else None)
    found = _DIGEST.search(said or "")
    return found[1] if found else None


def _goog(headers: Mapping[str, str], name: str) -> str | None:
    stated = (part.strip().partition("=") for part in headers.get("x-goog-hash", "").split(","))
    return next((value for key, _, value in stated if key == name), None)


def _etag(headers: Mapping[str, str]) -> str | None:
    """An S3 object's ETag is its MD5 when it was put in one piece and not encrypted with a key of one's own."""
    from_s3 = headers.get("server", "") == "AmazonS3" or "x-amz-request-id" in headers
    own_key = headers.get("x-amz-server-side-encryption", "AES256") != "AES256"
    found = _HEX_MD5.fullmatch(headers.get("etag", ""))
    if not found or not from_s3 or own_key or "x-amz-server-side-encryption-customer-algorithm" in headers:
        return None
    return base64.b64encode(bytes.fromhex(found[1])).decode()
