"""Secrets at rest: encrypted with Fernet keys, newest first, so that keys can be rotated while old values stay readable."""

from __future__ import annotations

import hashlib
import hmac

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from tracker.errors import ConfigurationError


class Vault:
    """Encrypts and decrypts what must not be readable in the database or its backups."""

    def __init__(self, keys: str) -> None:
        given = [key.strip() for key in keys.split(",") if key.strip()]
        try:
            fernets = [Fernet(key) for key in given]
            self._fernet, self._newest = MultiFernet(fernets), fernets[:1]
        except ValueError:
            raise ConfigurationError(
                "TRACKER_SECRET_KEYS",
                "is not a comma list of Fernet keys",
                "use keys of 32 bytes in URL-safe base64, newest first",
            ) from None
        self._peppers = [hashlib.sha256(b"generation-tracker look-up" + key.encode()).digest() for key in given]

    def encrypt(self, secret: str) -> bytes:
        """The secret as it is stored."""
        return self._fernet.encrypt(secret.encode())

    def decrypt(self, stored: bytes) -> str:
        """The secret itself. ConfigurationError when none of the keys fits."""
        try:
            return self._fernet.decrypt(stored).decode()
        except InvalidToken:
            raise ConfigurationError(
                "TRACKER_SECRET_KEYS",
                "none of its keys opens what is stored",
                "add the key that was in use when it was stored",
            ) from None

    def is_newest(self, stored: bytes) -> bool:
        """Whether it is encrypted with the newest key."""
        try:
            self._newest[0].decrypt(stored)
        except InvalidToken:
            return False
        return True

    def look_up_hash(self, secret: str) -> bytes:
        """A keyed hash by which a secret is found without being readable, with the newest key."""
        return self.look_up_hashes(secret)[0]

    def look_up_hashes(self, secret: str) -> list[bytes]:
        """Those that it may be stored with, the newest key's first: each key gives another."""
        return [hmac.digest(pepper, secret.encode(), "sha256") for pepper in self._peppers]
