"""The complete environment of the children, from the settings. Pure: it reads and changes nothing.

Children never look into the home, nor anywhere else, for what they need; and no secret stands on a command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from pydantic import SecretStr

from tracker.settings import Settings

FOREIGN = ("CELERY_", "FLOWER_")
"""Celery and Flower read these prefixes and prefer them to their configuration."""
FOREIGN_TO_OUR_DATABASE = "PG"
"""libpq reads these: PGSSLMODE=require, say, would keep everybody from the embedded server. With a server of the user's they are his."""
PREFIX = "TRACKER_"
SIMULATOR_VARIABLE = "TRACKER_INTERNAL_SIMULATOR_URL"


def complete(
    settings: Settings, base: Mapping[str, str], *, own_database: bool, simulator_url: str | None
) -> dict[str, str]:
    """What a child needs to know: the user's own environment, with every setting spelt out."""
    foreign = (*FOREIGN, FOREIGN_TO_OUR_DATABASE) if own_database else FOREIGN
    inherited = {name: value for name, value in base.items() if not name.startswith(foreign)}
    simulator = {SIMULATOR_VARIABLE: simulator_url} if simulator_url else {}
    return {**inherited, **_fields(settings), **_accounts(settings), **simulator, "PYTHONUNBUFFERED": "1"}


def inherited(base: Mapping[str, str], ours: Mapping[str, str | None], theirs: Iterable[str]) -> dict[str, str]:
    """The environment with the supervisor's `.env` below it. `theirs` are the names in the `.env` that children would find by themselves.

    Children start in another folder; what only stands there was never meant, and an empty variable hides it.
    """
    found = {name: value for name, value in ours.items() if name.startswith(PREFIX) and value}
    hidden = {name: "" for name in theirs if name.startswith(PREFIX)}
    return {**hidden, **found, **base}


def without_settings(base: Mapping[str, str], theirs: Iterable[str] = ()) -> dict[str, str]:
    """An environment in which nothing of ours is configured, whatever the children's `.env` says."""
    return inherited({name: value for name, value in base.items() if not name.startswith(PREFIX)}, {}, theirs)


def _fields(settings: Settings) -> dict[str, str]:
    present = {name: getattr(settings, name) for name in Settings.model_fields if name not in {"accounts", "given"}}
    present |= {
        "home": settings.home.resolve(),
        "broker_url": settings.broker_url or settings.redis_url,
        "artifacts_url": settings.artifacts,
        # Left out, it means what the API's host makes of it.
        "egress_allow": settings.egress_allow if "egress_allow" in settings.given else None,
    }
    return {f"TRACKER_{name.upper()}": _text(value) for name, value in present.items() if value is not None}


def _accounts(settings: Settings) -> dict[str, str]:
    found = {}
    for provider, account in settings.accounts.items():
        stem = f"TRACKER_{provider.upper().replace('-', '_')}"
        values = {"BASE_URL": account.base_url, "API_KEY": account.api_key}
        found.update({f"{stem}_{name}": _text(value) for name, value in values.items() if value is not None})
    return found


def _text(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, tuple):
        return ",".join(str(part) for part in value)
    if isinstance(value, timedelta):
        return f"PT{value.total_seconds():.6f}S"
    return str(value)
