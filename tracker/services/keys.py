"""API keys: made once in plain, kept as a hash, and recognised again."""

from __future__ import annotations

import hashlib
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from tracker.core import ids, signing
from tracker.errors import FieldProblem, ForbiddenError, InvalidError, NotFoundError, UnauthorizedError
from tracker.services.forms import KeyForm
from tracker.store import db, endpoints, keys
from tracker.store.db import Database
from tracker.store.keys import Key
from tracker.store.vault import Vault

PREFIX = "trk_"
DEFAULT_PROJECT = "default"
_ALPHABET = string.ascii_letters + string.digits
_LENGTH = 40
"""Base62 digits: 238 random bits."""
_SHOWN = 10
"""Characters of a key that lists show, so that people can tell keys apart."""
NOTED = timedelta(minutes=1)
"""How often the use of a key is noted: at each use, reading would become writing."""
IMPLIED = {
    "admin": frozenset({"read", "write", "admin"}),
    "write": frozenset({"read", "write"}),
    "read": frozenset({"read"}),
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is asking. Scopes include what they imply."""

    project_id: UUID
    project: str
    scopes: frozenset[str]
    key_id: UUID | None = None

    def require(self, scope: str) -> None:
        """Raise ForbiddenError unless the key has this scope."""
        if scope not in self.scopes:
            raise ForbiddenError(scope)


def new_token() -> str:
    """A fresh key."""
    return PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def _hash(token: str) -> bytes:
    # A key has more entropy than any hash function could stretch: plain SHA-256 is right, and fast.
    return hashlib.sha256(token.encode()).digest()


class Keys:
    """Makes, finds and ends API keys."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database, self._vault = database, vault

    def authenticate(self, token: str) -> Caller:
        """Who this token belongs to. UnauthorizedError when it is unknown, revoked or expired."""
        with self._database.looking() as tx:
            found = keys.by_hash(tx, _hash(token))
            if found is None:
                raise UnauthorizedError("this API key is not known")
            key, now = found
            if key.revoked_at is not None:
                raise UnauthorizedError("this API key was revoked")
            if key.expires_at is not None and key.expires_at <= now:
                raise UnauthorizedError("this API key has expired")
            if key.last_used_at is None or now - key.last_used_at > NOTED:
                keys.touch(tx, key.id, now)
        return Caller(key.project_id, key.project, implied(key.scopes), key.id)

    def project(self, name: str = DEFAULT_PROJECT, *, make: bool = False) -> Caller:
        """A caller with every right in a project, for the CLI. NotFoundError when there is none and none is to be made."""
        with self._database.transaction() as tx:
            found = keys.project(tx, name)
            if found is None and make:
                found = self._make_project(tx, name)
        if found is None:
            raise NotFoundError("project", name)
        return Caller(found, name, implied(["admin"]))

    def projects(self) -> list[tuple[str, UUID]]:
        """Every project by name, with its id."""
        with self._database.transaction() as tx:
            return keys.projects(tx)

    def create(self, project_id: UUID, form: KeyForm) -> tuple[Key, str]:
        """A new key and its token, which is shown this once."""
        token = new_token()
        with self._database.transaction() as tx:
            now = db.now(tx)
            if form.expires_at is not None and form.expires_at <= now:
                raise InvalidError(FieldProblem("expires_at", "it lies in the past"))
            key_id = ids.uuid7(now)
            self._insert(tx, key_id, project_id, form.name, token, form.scopes, now, form.expires_at)
            key = keys.get(tx, project_id, key_id)
        if key is None:
            raise NotFoundError("key", ids.public("key", key_id))
        return key, token

    def ensure_bootstrap(self, token: str) -> None:
        """Make sure that this admin key of project `default` exists."""
        if not token.startswith(PREFIX) or len(token) < 20:  # noqa: PLR2004 - shorter ones can be guessed
            raise InvalidError(
                FieldProblem(
                    "TRACKER_BOOTSTRAP_API_KEY", f"it must begin with {PREFIX} and have at least 20 characters"
                )
            )
        with self._database.transaction() as tx:
            now = db.now(tx)
            project_id = keys.project(tx, DEFAULT_PROJECT) or self._make_project(tx, DEFAULT_PROJECT)
            self._insert(tx, ids.uuid7(now), project_id, "bootstrap", token, ["admin"], now, None)

    def _make_project(self, tx: db.Transaction, name: str) -> UUID:
        """A project has a secret from its first moment: every webhook can be signed."""
        now = db.now(tx)
        project_id, made = keys.make_project(tx, name, ids.uuid7(now))
        if made:
            secret = self._vault.encrypt(signing.new_secret())
            endpoints.add_secret(
                tx, secret_id=ids.uuid7(now), project_id=project_id, endpoint_id=None, secret=secret, now=now
            )
        return project_id

    @staticmethod
    def _insert(  # noqa: PLR0917 - one private call for both ways to make a key
        tx: db.Transaction, key_id: UUID, project_id: UUID, name: str, token: str, scopes: Iterable[str], now: datetime,
        expires_at: datetime | None,
    ) -> None:  # fmt: skip
        keys.insert(
            tx, key_id=key_id, project_id=project_id, name=name, prefix=token[:_SHOWN], hash_=_hash(token), scopes=list(scopes), now=now,
            expires_at=expires_at,
        )  # fmt: skip

    def page(self, project_id: UUID | None, before: UUID | None, limit: int) -> tuple[list[Key], UUID | None]:
        """Keys, newest first, and the id before which the next page begins."""
        with self._database.transaction() as tx:
            found = keys.newest(tx, project_id, before, limit + 1)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    def get(self, project_id: UUID, key_id: UUID) -> Key:
        """One key of a project."""
        with self._database.transaction() as tx:
            key = keys.get(tx, project_id, key_id)
        if key is None:
            raise NotFoundError("key", ids.public("key", key_id))
        return key

    def revoke(self, project_id: UUID, key_id: UUID) -> Key:
        """End a key at once; revoking again is no error."""
        self.get(project_id, key_id)
        with self._database.transaction() as tx:
            keys.revoke(tx, key_id, db.now(tx))
        return self.get(project_id, key_id)


def implied(scopes: Iterable[str]) -> frozenset[str]:
    """The scopes with all that they imply."""
    return frozenset().union(*(IMPLIED[scope] for scope in scopes))
