"""How nearly all providers want to be asked: a bearer key, JSON, and the task's id in the path."""

from __future__ import annotations

from functools import lru_cache
from urllib.parse import quote

from tracker.providers.base import Account, Question

Headers = tuple[tuple[str, str], ...]


def get(account: Account, path: str, headers: Headers) -> Question:
    """A GET of this path of the account's host."""
    return Question("GET", account.base_url.rstrip("/") + path, headers)


def bearer(account: Account, *more: tuple[str, str]) -> Headers:
    """JSON both ways and the key as bearer, then `more`; an account without a key shows none."""
    return _bearer(account.api_key, more)


@lru_cache(maxsize=1024)  # the same tuple for every question: the transport sets headers again only where they differ
def _bearer(api_key: str | None, more: Headers) -> Headers:
    plain = (("Accept", "application/json"), ("Content-Type", "application/json"))
    return (*plain, *more) if api_key is None else (*plain, ("Authorization", f"Bearer {api_key}"), *more)


def in_path(task_id: str) -> str:
    """The id as it stands in a URL's path."""
    # Nearly all are made of letters, digits and hyphens.
    return task_id if task_id.isascii() and task_id.replace("-", "").isalnum() else quote(task_id, safe="")
