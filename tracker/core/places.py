"""Where a stored copy lies: object keys from what is known about it. Pure."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime

EXTENSIONS = {
    "video/mp4": "mp4", "video/quicktime": "mov", "video/webm": "webm", "audio/mpeg": "mp3", "audio/wav": "wav",
    "audio/mp4": "m4a", "audio/ogg": "ogg", "audio/flac": "flac", "image/jpeg": "jpg", "image/png": "png",
    "image/webp": "webp", "image/gif": "gif", "image/avif": "avif",
}  # fmt: skip
SIDECAR = ".json"
"""The end of the key of what is noted beside each object."""
CONTENT = "sha256"
"""The folder of a project that holds copies named by their content."""
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")
_LONGEST_NAME = 80


def safe(name: str) -> str:
    """A folder's name for a project's: the same where every store takes it, else made safe with a hash that keeps it unique."""
    plain = _UNSAFE.sub("_", name).lstrip(".")
    if plain == name and 0 < len(name) <= _LONGEST_NAME:
        return name
    return f"{plain[: _LONGEST_NAME - 9]}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def extension(media_type: str) -> str:
    """Without the dot; `bin` for what has none."""
    return EXTENSIONS.get(media_type, "bin")


def by_generation(  # noqa: PLR0917 - the parts of the template, in its order
    project: str, provider: str, at: datetime, generation: str, kind: str, index: int, media_type: str
) -> str:
    """`{project}/{provider}/{yyyy}/{mm}/{id}/{kind}-{index}.{ext}`, by the month of the registration."""
    return f"{safe(project)}/{safe(provider)}/{at:%Y/%m}/{generation}/{kind}-{index}.{extension(media_type)}"


def by_content(project: str, sha256: str, media_type: str) -> str:
    """`{project}/sha256/{first two}/{sha256}.{ext}`: the same bytes are stored once in a project."""
    return f"{safe(project)}/{CONTENT}/{sha256[:2]}/{sha256}.{extension(media_type)}"


def is_by_content(key: str) -> bool:
    """Whether other generations may share this object."""
    parts = key.split("/")
    return len(parts) == 4 and parts[1] == CONTENT  # noqa: PLR2004 - project, folder, first two, name
