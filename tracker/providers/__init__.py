"""The providers that can be asked. A new one is one file, one line here, and recorded answers under tests/providers."""

from __future__ import annotations

from tracker.errors import FieldProblem, InvalidError
from tracker.providers import kling, luma_official, midjourney, newapi, runway
from tracker.providers.ark import ARK
from tracker.providers.base import Provider
from tracker.providers.jimeng import JIMENG
from tracker.providers.luma import Luma
from tracker.providers.minimax import MINIMAX
from tracker.providers.openai import OPENAI
from tracker.providers.suno import Suno
from tracker.providers.veo import VEO
from tracker.providers.vidu import VIDU

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
