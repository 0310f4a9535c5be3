"""What the provider last said of a task, for clients that only changed their base URL. Nothing is asked here, and nobody is told."""

from __future__ import annotations

from typing import NamedTuple
from uuid import UUID

from tracker.core.generation import State
from tracker.errors import UnauthorizedError
from tracker.store import credentials, generations
from tracker.store.db import Database
from tracker.store.vault import Vault


class Stored(NamedTuple):
    """The state of a task, None where it is not registered; and the provider's own body, None while nothing was said of it."""

    state: State | None
    body: bytes | None


class DropInAnswers:
    """Finds by project, or by a provider key that is stored with a credential."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database, self._vault = database, vault

    def of_project(self, project_id: UUID, provider: str, task_id: str) -> Stored:
        """Of whatever account of this project; where two have a task of this id, of the one that was registered last."""
        with self._database.looking() as tx:
            return Stored(*generations.answer_to(tx, project_id, provider, task_id, None))

    def of_provider_key(self, key: str, provider: str, task_id: str) -> Stored:
        """Of the accounts that have this key. UnauthorizedError when none of this provider has."""
        with self._database.looking() as tx:
            found = credentials.by_key_hash(tx, self._vault.look_up_hashes(key))
            accounts = [credential for credential in found if provider in credential.providers]
            if not accounts:
                raise UnauthorizedError("this key belongs to no account")
            stored = Stored(None, None)
            for project_id in sorted({account.project_id for account in accounts}):
                ours = [account.id for account in accounts if account.project_id == project_id]
                stored = Stored(*generations.answer_to(tx, project_id, provider, task_id, ours))
                if stored.state is not None:
                    break
            return stored
