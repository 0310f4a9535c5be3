"""Single values from a provider's JSON, read with tolerance: what cannot be used is None, and nothing here ever raises."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from tracker.core.generation import KINDS, Output

_LONGEST_URL = 8192
"""Signed links are long, but servers refuse request lines above 8 KB."""
_LARGEST_SIDE = 1_000_000
"""Pixels. More is not a picture but a mistake, and could overflow a column."""
_MARGIN = 4096
"""Characters read beyond those kept, for the keys among them; the rest of a huge text is not looked at."""
_CONTROL = re.compile(r"[\x00-\x20\x7f]+")
_SECRET = re.compile(
    r"\bbearer\s+[^\s\"',]+|\beyJ[\w-]{6,}\.[\w.-]+|\b(?:sk|pk|ak|rk|key|luma|trk|whsec)[-_](?=[\w*.-]*[\d*])[\w*.-]{6,}",
    re.IGNORECASE,
)
"""Keys in the forms that providers echo in their complaints: bearer values, JSON web tokens, and prefixed keys."""
_MEDIA_TYPES = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".webm": "video/webm",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".gif": "image/gif",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".m4a": "audio/mp4",
}


def clean(text: str, longest: int) -> str:
    """`text` on one line, at most `longest` characters, without control characters (PostgreSQL refuses NUL) and without keys."""
    if len(text) <= longest and text.isalnum() and text.isascii():
        return text  # nearly every status word; no key is without a sign between
    # Cut to size only at the end: half a key would no longer look like one.
    plain = _CONTROL.sub(" ", text[: longest + _MARGIN]).strip()
    return _SECRET.sub("[secret]", plain)[:longest].encode("utf-8", "replace").decode()


def text(value: object) -> str | None:
    """A string that says something, or a number written out; None otherwise."""
    if isinstance(value, str):
        return value.strip() or None
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def url(value: object) -> str | None:
    """An absolute http or https URL."""
    if not isinstance(value, str) or len(value) > _LONGEST_URL:
        return None
    address = value.strip()
    try:
        parts = urlsplit(address)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and not _CONTROL.search(address)
        address.encode()
    except ValueError:
        return None
    return address if usable else None


def progress(value: object, *, whole: int = 100) -> float | None:
    """Progress from 0 to 1, of "62%" or a whole number (of `whole`), or a fraction (up to 1 as it is, above it per cent)."""
    per_cent = isinstance(value, int) and whole != 1
    if isinstance(value, str):
        per_cent = value.strip().endswith("%") or value.strip().isdigit()
        try:
            value = float(value.strip().removesuffix("%"))
        except ValueError:
            return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not isfinite(value):
        return None
    return round(min(max(value / 100 if per_cent or value > 1 else value, 0.0), 1.0), 4)


def pixels(value: object) -> int | None:
    """A width or height."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 1 <= value <= _LARGEST_SIDE:
        return None
    return int(value)


def seconds(value: object) -> float | None:
    """A duration above zero, as a number or written out."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not (isfinite(value) and value > 0):
        return None
    return float(value)


def media_type(stated: object, address: str) -> str | None:
    """The MIME type: what the provider states, where that is one ("video" alone is not), else what the URL's ending tells."""
    if isinstance(stated, str) and re.fullmatch(r"[a-z]+/[\w.+-]+", stated.strip().lower()):
        return stated.strip().lower()
    return _MEDIA_TYPES.get(PurePosixPath(urlsplit(address).path).suffix.lower())


def path_of(address: str) -> str:
    """The path of an address; empty where there is none."""
    return "" if url(address) is None else urlsplit(address.strip()).path


def kind_of(address: object) -> str | None:
    """The kind of output that an address leads to, by its ending; None where that does not tell."""
    found = None if url(address) is None else media_type(None, str(address).strip())
    return None if found is None else found.partition("/")[0]


def mapping(value: object) -> Mapping[str, Any]:
    """The JSON object, or an empty one where there is something else."""
    return value if isinstance(value, dict) else {}


def sequence(value: object) -> Sequence[Any]:
    """The JSON array, or an empty one where there is something else."""
    return value if isinstance(value, list) else ()


def numbered(outputs: Iterable[Output | None]) -> tuple[Output, ...]:
    """Those that there are, by kind, each with its place within its kind."""
    found: dict[str, list[Output]] = {kind: [] for kind in KINDS}
    for one in outputs:
        if one is not None:
            found[one.kind].append(replace(one, index=len(found[one.kind])))
    return tuple(one for same in found.values() for one in same)


def output(kind: str, described: object, *, prefer: str = "url") -> Output | None:
    """One output from a bare URL or from `{url, width, height, duration, media_type}`; None without a usable URL.

    `prefer` names the key whose URL is taken first.
    """
    node = mapping(described)
    address = url(described) or url(node.get(prefer)) or url(node.get("url"))
    if address is None:
        return None
    return Output(
        kind,
        0,
        address,
        width=pixels(node.get("width")),
        height=pixels(node.get("height")),
        duration=seconds(node.get("duration")),
        media_type=media_type(node.get("media_type"), address),
    )
