"""What a link to a file says about itself: when it stops working. Pure; knows the query forms of the great object stores and CDNs."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, urlsplit

from tracker.core.times import provider_time

_AMZ_DATE = "%Y%m%dT%H%M%SZ"
_STAMPED = (("x-amz-date", "x-amz-expires"), ("x-goog-date", "x-goog-expires"), ("x-tos-date", "x-tos-expires"),
            ("x-oss-date", "x-oss-expires"))  # fmt: skip
"""Signatures of the AWS kind (S3, R2, GCS, Volcengine, Alibaba): a date, and seconds from it."""
_ENDS = ("expires", "expiry", "expire", "expires_at", "exp", "e", "se", "x-expires", "ossexpires")
"""A moment: seconds since 1970 (CloudFront, older S3 and GCS, Qiniu's `e`) or ISO 8601 (Azure's `se`)."""
_EDGE_TOKEN = re.compile(r"(?:^|~)exp=(\d{9,11})(?:~|$)", re.ASCII)
"""Akamai's token: `hdnts=st=...~exp=1700000000~acl=...`."""


def expires_at(url: str) -> datetime | None:
    """When the link ends, as far as its query tells; None when it does not."""
    try:
        query = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query)}
    except ValueError:
        return None
    for begins, lasts in _STAMPED:
        if begins in query and lasts in query:
            return _stamped(query[begins], query[lasts])
    for name in _ENDS:
        if (at := _moment(query.get(name))) is not None:
            return at
    tokens = (_EDGE_TOKEN.search(value) for value in query.values())
    return next((_moment(found[1]) for found in tokens if found), None)


def _stamped(begins: str, lasts: str) -> datetime | None:
    if not (lasts.isascii() and lasts.isdecimal() and len(lasts) <= 9):  # noqa: PLR2004 - nine digits are 30 years
        return None
    try:
        return datetime.strptime(begins, _AMZ_DATE).replace(tzinfo=UTC) + timedelta(seconds=int(lasts))
    except (ValueError, OverflowError):
        return None


def _moment(value: str | None) -> datetime | None:
    if value is None:
        return None
    whole = value.partition(".")[0]
    if whole.isascii() and whole.isdecimal():
        # A small number is a span or something else altogether: no link ends before 2001.
        return provider_time(int(whole)) if 9 <= len(whole) <= 13 else None  # noqa: PLR2004 - seconds or milliseconds
    return provider_time(value) if len(value) >= len("2026-01-01T00:00Z") else None
