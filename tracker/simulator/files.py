"""The files behind the links: a real clip and two pictures, made unique for each generation, with ranges, ETags and expiring links.

Media only: what a state answer says about them is in `luma.py`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from functools import cache, lru_cache
from pathlib import Path
from urllib.parse import urlencode

from tracker.simulator import wire
from tracker.simulator.messages import Reply, Request
from tracker.simulator.misbehaviour import Scope
from tracker.simulator.script import Script
from tracker.simulator.world import World

# Of the clip that media/make.sh makes.
WIDTH, HEIGHT, DURATION = 1360, 752, 3.041667

_HERE = Path(__file__).parent / "media"
_SOURCES = {
    "video.mp4": ("clip.mp4", "video/mp4"),
    "raw.mp4": ("clip.mp4", "video/mp4"),
    "thumbnail.jpg": ("thumbnail.jpg", "image/jpeg"),
    "last_frame.jpg": ("last_frame.jpg", "image/jpeg"),
}
NAMES = tuple(_SOURCES)

_BIG = 64 * 1024 * 1024
_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)

# Links need no secrecy from those who run a simulator; the signature only makes a changed `expires` fail, as at a real store.
_LINK_KEY = b"simulator"


def content(task_id: str, name: str, *, version: int = 0, big: bool = False) -> bytes:
    """The bytes of one file: playable, and like no other generation's."""
    source, media_type = _SOURCES[name]
    label = f"{task_id}/{name}/{version}".encode()
    original = _source(source)
    if media_type == "image/jpeg":
        # A comment segment directly behind the start-of-image marker.
        return original[:2] + b"\xff\xfe" + (len(label) + 2).to_bytes(2) + label + original[2:]
    # A `free` box (ISO/IEC 14496-12, 8.1.2) at the end: players skip it.
    padding = label + bytes(_BIG - len(original) - 8 - len(label)) if big else label
    return original + (8 + len(padding)).to_bytes(4) + b"free" + padding


@lru_cache(maxsize=256)
def sha256(task_id: str, name: str, version: int = 0) -> str:
    """In hexadecimal, of the ordinary content (not of a `bigfile`)."""
    return hashlib.sha256(content(task_id, name, version=version)).hexdigest()


@cache
def palette() -> str:
    """The thumbnail's 5 x 5 colours, as the provider encodes them."""
    return (_HERE / "palette.txt").read_text().strip()


def link(origin: str, script: Script, name: str, expires: float | None = None) -> str:
    """The absolute URL of a file; with `expires` (seconds since 1970, on the simulator's clock) a signed one."""
    url = f"{origin}/files/{script.task_id}/{name}"
    if expires is None:
        return url
    return f"{url}?{urlencode({'expires': f'{expires:.3f}', 'signature': _signature(script.task_id, name, f'{expires:.3f}')})}"


def serve(world: World, request: Request) -> Reply:
    """`GET /files/{id}/{name}`."""
    task_id, _, name = request.path.removeprefix("/files/").rpartition("/")
    script = world.lives.find(task_id)
    now = world.clock.now()
    if script is None or name not in _SOURCES or script.state(now) != "completed":
        return Reply(404, b"Not Found", "text/plain")
    refusal = _refused(script, name, request.parameters(), now)
    if refusal is not None:
        return refusal
    path = f"{task_id}/{name}"
    before = world.stats.fetches[path] if request.method == "HEAD" else world.stats.fetched(path)
    fault = script.fault
    if script.has("redirectfile") and not request.query:
        world.stats.spoilt["redirectfile"] += 1
        return Reply(302, headers=(("Location", f"{link(request.origin, script, name)}?moved=1"),))
    good = _ranged(request, script, name, before if script.has("changing") else 0)
    if (
        fault is not None
        and fault.kind.scope is Scope.FILE
        and fault.strikes(before, now - script.birth.start)
        and fault.kind.spoil
    ):
        return world.spoilt(fault.kind, good, fault.seconds)
    return _chunked(good) if script.has("nolength") else good


def _refused(script: Script, name: str, parameters: dict[str, str], now: float) -> Reply | None:
    expires = parameters.get("expires")
    if expires is None:
        return Reply(403, b"AccessDenied", "application/xml") if script.has("expire") else None
    signed = hmac.compare_digest(parameters.get("signature", ""), _signature(script.task_id, name, expires))
    if signed and now < float(expires):
        return None
    return Reply(
        403, b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>", "application/xml"
    )


def _ranged(request: Request, script: Script, name: str, version: int) -> Reply:
    """The whole file, the part asked for, or the news that the part or a change does not exist."""
    big = script.has("bigfile") and _SOURCES[name][1] == "video/mp4"
    body = content(script.task_id, name, version=version, big=big)
    tag = f'"{sha256(script.task_id, name, version)[:32]}{"-big" if big else ""}"'
    whole = Reply(200, body, _SOURCES[name][1], (("ETag", tag), ("Accept-Ranges", "bytes")), wire.poured)
    if tag in request.headers.get("if-none-match", ""):
        return Reply(304, headers=whole.headers)
    asked = request.headers.get("range")
    if asked is None or script.has("norange") or request.headers.get("if-range", tag) != tag:
        return whole if not script.has("norange") else whole.but(headers=whole.headers[:1])
    part = _span(asked, len(body))
    if part is None:
        return whole
    start, end = part
    if start >= end:
        return Reply(416, headers=(*whole.headers, ("Content-Range", f"bytes */{len(body)}")))
    return whole.but(
        status=206,
        body=body[start:end],
        headers=(*whole.headers, ("Content-Range", f"bytes {start}-{end - 1}/{len(body)}")),
    )


def _span(asked: str, size: int) -> tuple[int, int] | None:
    """First byte and the one behind the last; start >= end cannot be satisfied; None is to be ignored (several ranges, other units)."""
    found = _RANGE.fullmatch(asked.replace(" ", ""))
    if found is None or found[0] == "bytes=-" or (found[1] and found[2] and int(found[2]) < int(found[1])):
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size if int(found[2]) else 0
    return int(found[1]), min(size, int(found[2]) + 1) if found[2] else size


def _chunked(good: Reply) -> Reply:
    """The same body without a length, in chunks of 16 kB."""
    pieces = [good.body[start : start + 16_384] for start in range(0, len(good.body), 16_384)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (*pieces, b""))
    return good.but(body=body, chunked=True)


def _signature(task_id: str, name: str, expires: str) -> str:
    return hmac.new(_LINK_KEY, f"{task_id}/{name}?{expires}".encode(), hashlib.sha256).hexdigest()


@cache
def _source(name: str) -> bytes:
    return (_HERE / name).read_bytes()
