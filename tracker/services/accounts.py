"""Which stored account a registration means by a credential's name."""

from __future__ import annotations

from collections.abc import Sequence

from tracker.errors import FieldProblem
from tracker.store.credentials import Credential


def chosen(accounts: Sequence[Credential], provider: str, name: str) -> Credential | None:
    """The credential that `name` means for `provider`.

    One stored by hand comes before the environment's. `default` falls back to the built-in simulator's where nothing else serves the
    provider, so that a first try works without any key.
    """
    serving = [account for account in accounts if provider in account.providers]
    named = [account for account in serving if account.name == name]
    if not named and name == "default":
        named = [account for account in serving if account.name == "simulator" and account.environment_provider]
    return named[0] if named else None


def no_credential(provider: str, name: str) -> FieldProblem:
    """What to do when a registration names a credential that is not there."""
    variable = f"TRACKER_{provider.upper().replace('-', '_')}_API_KEY"
    mend = f"PUT /v1/credentials/{name} with providers [{provider!r}]"
    return FieldProblem(
        "credential",
        f"there is no credential {name!r} for {provider}; {mend}"
        + (f", or set {variable}" if name == "default" else ""),
    )
