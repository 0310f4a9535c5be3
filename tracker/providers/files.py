"""Reads the files that describe providers: `$TRACKER_HOME/providers/NAME.toml`, one for each."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from pydantic import ValidationError

from tracker.errors import ConfigurationError
from tracker.providers.described import Described, Description
from tracker.settings import described_in

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST_NAME = 40
_TAKEN = frozenset({"bootstrap"})
"""TRACKER_BOOTSTRAP_API_KEY is something else."""


def everything(home: Path) -> Iterator[Described]:
    """The providers that this home describes. Raises ConfigurationError for the first file that is wrong."""
    return map(described, described_in(home))


def described(file: Path) -> Described:
    """The provider of one file. Raises ConfigurationError, which names the file and the field."""
    name = file.stem
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME or name in _TAKEN:
        raise ConfigurationError(
            str(file), f"{name!r} cannot be a provider's name", f"use up to {_LONGEST_NAME} of a-z, 0-9 and hyphens"
        )
    try:
        told = tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as wrong:
        raise ConfigurationError(str(file), f"cannot be read ({wrong.strerror})", "let the tracker read it") from None
    except ValueError as wrong:  # of the encoding, or of the form
        raise ConfigurationError(str(file), f"is not TOML ({wrong})", "correct it") from None
    try:
        return Described(name, Description.model_validate(told))
    except ValidationError as wrong:
        raise _told(file, wrong) from None


def _told(file: Path, wrong: ValidationError) -> ConfigurationError:
    first = wrong.errors()[0]
    field = ".".join(str(part) for part in first["loc"])
    reason = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        return ConfigurationError(
            f"{file}: {field}", "is no field of such a file", "leave it out; docs/PROVIDERS.md has all"
        )
    return ConfigurationError(
        f"{file}{': ' + field if field else ''}", f"is wrong ({reason[0].lower() + reason[1:]})", "correct it"
    )
