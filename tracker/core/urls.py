"""Small facts about URLs."""

from __future__ import annotations

from urllib.parse import urlsplit


def host_of(url: str) -> str:
    """`host:port` of a URL, lower case, with the scheme's own port where it names none."""
    parts = urlsplit(url)
    return f"{(parts.hostname or '').lower()}:{parts.port or (443 if parts.scheme == 'https' else 80)}"


def origin_of(url: str) -> str:
    """What of a URL may stand in a log: scheme and `host:port`. The path of many a webhook is its secret."""
    return f"{urlsplit(url).scheme}://{host_of(url)}"
