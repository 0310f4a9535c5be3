"""The providers that can be asked. A new one is one file, one line here, and recorded answers under tests/providers.

Those that a home describes in files come on top when a process starts, with `take_in`.
"""

from __future__ import annotations

from pathlib import Path

from tracker.errors import ConfigurationError, FieldProblem, InvalidError
from tracker.providers import files, kling, luma_official, midjourney, newapi, runway
from tracker.providers.ark import ARK
from tracker.providers.base import Provider
from tracker.providers.jimeng import JIMENG
from tracker.providers.luma import Luma
from tracker.providers.minimax import MINIMAX
from tracker.providers.openai import OPENAI
from tracker.providers.suno import Suno
from tracker.providers.veo import VEO
from tracker.providers.vidu import VIDU
from tracker.settings import DESCRIBED

_ALL: tuple[Provider, ...] = (
    Luma(),
    luma_official.OFFICIAL,
    kling.RELAY,
    kling.OFFICIAL,
    runway.RELAY,
    runway.OFFICIAL,
    Suno(),
    newapi.NEWAPI,
    newapi.YUNWU,
    midjourney.MIDJOURNEY,
    MINIMAX,
    VIDU,
    ARK,
    JIMENG,
    OPENAI,
    VEO,
)
REGISTRY: dict[str, Provider] = {provider.name: provider for provider in _ALL}
BUILT_IN = frozenset(REGISTRY)


def take_in(home: Path) -> None:
    """Add the providers that files of this home describe, instead of those of an earlier call.

    Raises ConfigurationError for the first file that is wrong, or named like a built-in provider.
    """
    found = {provider.name: provider for provider in files.everything(home)}
    for name in sorted(found.keys() & BUILT_IN):
        raise ConfigurationError(
            f"{home}/{DESCRIBED}/{name}.toml", f"{name!r} is a built-in provider", "give the file another name"
        )
    for name in REGISTRY.keys() - BUILT_IN:
        del REGISTRY[name]
    REGISTRY.update(found)


def get(name: str) -> Provider:
    """The provider of this name; InvalidError, naming those that are known, when there is none."""
    provider = REGISTRY.get(name)
    if provider is None:
        known = ", ".join(sorted(REGISTRY))
        raise InvalidError(
            FieldProblem("provider", f"{name[:60]!r} is not a provider; known are: {known}", "unknown_provider")
        )
    return provider


def batch_sizes() -> dict[str, int]:
    """How many ids one request can carry, by provider; 1 where there is no batch query."""
    return {name: max(1, provider.batch_size) for name, provider in REGISTRY.items()}
