"""Tells media from error pages by their first bytes. Never trusts a Content-Type, which providers get wrong."""

from __future__ import annotations

ENOUGH = 64
"""Bytes that decide."""

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x1a\x45\xdf\xa3", "video/webm"),  # EBML: also Matroska, which players treat alike
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
)
_RIFF = {b"WAVE": "audio/wav", b"WEBP": "image/webp"}
_BRANDS = {b"qt  ": "video/quicktime", b"M4A ": "audio/mp4", b"avif": "image/avif"}
_OLD_QUICKTIME = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip"})  # files from before `ftyp` existed
_MP3_FRAMES = tuple(
    bytes((0xFF, second)) for second in (0xFB, 0xFA, 0xF3, 0xF2, 0xE3, 0xE2)
)  # MPEG 1, 2, 2.5 layer III


def media_type(first: bytes) -> str | None:
    """The media type of a file that begins so; None for anything else, such as HTML, XML, JSON or nothing at all."""
    box = first[4:8]
    if box == b"ftyp":
        return _BRANDS.get(first[8:12], "video/mp4")
    if box in _OLD_QUICKTIME:
        return "video/quicktime"
    if first[:4] == b"RIFF":
        return _RIFF.get(first[8:12])
    for start, found in _STARTS:
        if first.startswith(start):
            return found
    return "audio/mpeg" if first.startswith(_MP3_FRAMES) else None
