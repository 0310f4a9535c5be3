"""The providers that can be asked. A new one is one file, one line here, and recorded answers under tests/providers."""

from __future__ import annotations

from tracker.errors import FieldProblem, InvalidError
from tracker.providers.base import Provider
from tracker.providers.kling import Kling, KlingOfficial
from tracker.providers.luma import Luma
from tracker.providers.luma_official import LumaOfficial
from tracker.providers.runway import Runway, RunwayOfficial
from tracker.providers.suno import Suno

_ALL: tuple[Provider, ...] = (
    Luma(),
    LumaOfficial(),
    Kling(),
    KlingOfficial(),
    Runway(),
    RunwayOfficial(),
    Suno(),
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
