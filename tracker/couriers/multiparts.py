"""Uploads to S3 that a killed worker left unfinished: listed and aborted, because their parts are paid for and shown nowhere.

Speaks the two calls that obstore has not. Google and Azure forget unfinished uploads by themselves (after a week), S3 never does.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from html import unescape
from urllib.parse import quote, urlencode, urlsplit

from tracker.core.addresses import Policy
from tracker.core.times import provider_time
from tracker.couriers.store import StorageError
from tracker.net.failures import NetError
from tracker.net.guard import GuardedSession

DEADLINE = 30.0
MOST_BYTES = 4 * 1024 * 1024
"""Of an answer: a thousand uploads are about 0.5 MB."""
_UPLOAD = re.compile(r"<Upload>(.*?)</Upload>", re.DOTALL)
_EMPTY = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where and as whom to ask, from the same variables that obstore reads. `key` is never shown."""

    endpoint: str
    name: str
    prefix: str
    region: str
    key_id: str
    key: str = field(repr=False)
    token: str | None = field(repr=False)


def bucket_of(url: str, environment: Mapping[str, str]) -> Bucket | None:
    """The bucket of an `s3://` address; None for other stores, and where the variables hold no fixed key to sign with."""
    parts = urlsplit(url)
    key_id, key = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if parts.scheme != "s3" or not parts.hostname or not key_id or not key:
        return None
    region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1"
    named = (environment.get(name) for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"))
    endpoint = next(filter(None, named), f"https://s3.{region}.amazonaws.com").rstrip("/")
    prefix = parts.path.strip("/")
    return Bucket(endpoint, parts.netloc, prefix, region, key_id, key, environment.get("AWS_SESSION_TOKEN"))


def abort_unfinished(bucket: Bucket, older_than: timedelta, now: datetime) -> int:
    """Abort uploads below our prefix that began longer ago; returns how many. Raises StorageError.

    One call sees a thousand of them: the next one finds the rest.
    """
    # The endpoint is the operator's own word, and may well be a machine next door.
    session = GuardedSession(Policy.of(["0.0.0.0/0", "::/0"]))
    try:
        listing = _call(session, bucket, "GET", "", {"uploads": "", "prefix": bucket.prefix}, now)
        old = [(key, upload) for key, upload, at in _uploads(listing) if at < now - older_than]
        for key, upload in old:
            _call(session, bucket, "DELETE", f"/{quote(key, safe='/-_.~')}", {"uploadId": upload}, now)
    finally:
        session.close()
    return len(old)


def _uploads(listing: str) -> Iterator[tuple[str, str, datetime]]:
    for one in _UPLOAD.finditer(listing):
        stated = {
            name: re.search(rf"<{name}>(.*?)</{name}>", one[1], re.DOTALL) for name in ("Key", "UploadId", "Initiated")
        }
        key, upload, began = (unescape(found[1]) if found else "" for found in stated.values())
        at = provider_time(began)
        if key and upload and at is not None:
            yield key, upload, at


def _call(  # noqa: PLR0917 - one private call with the parts of a request
    session: GuardedSession, bucket: Bucket, method: str, path: str, query: Mapping[str, str], now: datetime
) -> str:
    place = f"/{quote(bucket.name, safe='-_.~')}{path}"
    asked = urlencode(sorted(query.items()), quote_via=quote, safe="-_.~")
    headers = _signed(bucket, method, place, asked, now.astimezone(UTC))
    try:
        with session.open(method, f"{bucket.endpoint}{place}?{asked}", headers=headers, deadline=DEADLINE) as reply:
            body = b""
            while len(body) < MOST_BYTES and (more := reply.read(65536)):
                body += more
    except NetError as wrong:
        raise StorageError(f"unfinished uploads of {bucket.name} could not be looked up: {wrong}") from None
    if not 200 <= reply.status < 300 and not (method == "DELETE" and reply.status == 404):  # noqa: PLR2004 - HTTP's own
        raise StorageError(f"unfinished uploads of {bucket.name}: the store answers {reply.status} to {method}")
    return body.decode(errors="replace")


def _signed(bucket: Bucket, method: str, path: str, query: str, now: datetime) -> dict[str, str]:
    """AWS Signature Version 4 of a request without a body (docs: "Create a signed AWS API request")."""
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    headers = {"host": urlsplit(bucket.endpoint).netloc, "x-amz-content-sha256": _EMPTY, "x-amz-date": stamp}
    if bucket.token:
        headers["x-amz-security-token"] = bucket.token
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{value}\n" for name, value in sorted(headers.items()))
    request = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{_EMPTY}"
    scope = f"{day}/{bucket.region}/s3/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = f"AWS4{bucket.key}".encode()
    for part in (day, bucket.region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, text.encode(), hashlib.sha256).hexdigest()
    del headers["host"]
    return headers | {
        "Authorization": f"AWS4-HMAC-SHA256 Credential={bucket.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    }
