"""Logging for every process: one JSON object a line, or a readable line on a terminal. It knows no other room.

What a line is about, such as the generation's id, is given as `extra` and becomes a field of its own. Secrets are masked on the way
out, whoever let them slip in.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol, TextIO
from urllib.parse import urlsplit

from typing_extensions import override

from tracker.core.times import rfc3339

MASK = "***"
QUIET = ("alembic", "amqp", "kombu", "sqlalchemy", "urllib3", "asyncio", "tornado.access", "uvicorn.access")
"""Libraries that tell of each of their steps: they speak from `warning` on, unless we debug."""
_SHAPES = re.compile(
    r"(?P<key>\btrk_)[A-Za-z0-9]{8,}|(?P<webhook>\bwhsec_)[A-Za-z0-9+/=]{8,}"
    r"|(?P<url>\w://[^\s/:@]*:)[^\s/@]+(?=@)|(?P<bearer>\b[Bb]earer )[^\s\"',]+"
)
"""What a secret looks like where we do not know its value: our keys, webhook secrets, passwords in addresses, bearers."""
_SHORTEST_SECRET = 8
"""Characters. Masking a shorter one would blot out ordinary words."""
_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "color_message"}


class Wishes(Protocol):
    """What `configure` reads of the settings."""

    @property
    def log_level(self) -> str:
        """debug, info, warning or error."""


def configure(settings: Wishes, process: str, *, stream: TextIO | None = None) -> None:
    """Send everything logged in this Python process to `stream` (standard error), and nowhere else. Call it again after fork at will."""
    # Celery puts a proxy that logs in the place of sys.stderr: writing to that would never end.
    out = stream or sys.__stderr__ or sys.stderr
    mask = Mask(_secrets(settings))
    target = logging.StreamHandler(out)
    target.setFormatter(Readable(mask) if out.isatty() else Json(process, mask))
    level = getattr(logging, settings.log_level.upper())
    logging.basicConfig(handlers=[target], level=level, force=True)
    logging.captureWarnings(capture=True)
    for name in QUIET:
        logging.getLogger(name).setLevel(level if level <= logging.DEBUG else max(level, logging.WARNING))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "celery"):
        library = logging.getLogger(name)
        library.handlers, library.propagate = [], True


class Mask:
    """Replaces secrets in text: those whose values are known, and whatever has a secret's shape."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = {
            form for secret in secrets if len(secret) >= _SHORTEST_SECRET for form in (secret, json.dumps(secret)[1:-1])
        }
        longest_first = sorted(known, key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if known else None

    def __call__(self, text: str) -> str:
        """The text without secrets."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _SHAPES.sub(lambda found: (found[found.lastgroup] if found.lastgroup else "") + MASK, text)


class Json(logging.Formatter):
    """One object a line, for machines."""

    def __init__(self, process: str, mask: Mask) -> None:
        super().__init__()
        self._process, self._mask = process, mask

    @override
    def format(self, record: logging.LogRecord) -> str:
        """The record with what it is about."""
        line = {
            "at": rfc3339(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname.lower(),
            "process": self._process,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
            **_extras(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return self._mask(json.dumps(line, ensure_ascii=False, default=str))


class Readable(logging.Formatter):
    """One line for a person at a terminal."""

    def __init__(self, mask: Mask) -> None:
        super().__init__()
        self._mask = mask

    @override
    def format(self, record: logging.LogRecord) -> str:
        """Time, level, what happened, and what it is about."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        extras = "".join(f"  {name}={value}" for name, value in _extras(record).items())
        line = f"{clock} {record.levelname:<7} {record.getMessage()}{extras}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return self._mask(line)


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in _OWN and not name.startswith("_")}


def _secrets(settings: object) -> Iterator[str]:
    values = list(vars(settings).values())
    for accounts in [value for value in values if isinstance(value, Mapping)]:
        values += [secret for account in accounts.values() for secret in vars(account).values()]
    for value in values:
        reveal = getattr(value, "get_secret_value", None)
        if reveal is not None:
            secret = reveal()
            yield from [*secret.split(","), urlsplit(secret).password or ""]
