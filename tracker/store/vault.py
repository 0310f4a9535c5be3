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
            self._fernet = MultiFernet([Fernet(key) for key in given])
        except ValueError:
            raise ConfigurationError(
                "TRACKER_SECRET_KEYS",
                "is not a comma list of Fernet keys",
                "use keys of 32 bytes in URL-safe base64, newest first",
            ) from None
        # The oldest key gives the look-up hash: it must stay the same when a newer one is put in front.
        self._pepper = hashlib.sha256(b"generation-tracker look-up" + given[-1].encode()).digest()

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

    def rotate(self, stored: bytes) -> bytes:
        """The same secret under the newest key."""
        return self._fernet.rotate(stored)

    def look_up_hash(self, secret: str) -> bytes:
        """A keyed hash by which a secret is found without being readable."""
        return hmac.digest(self._pepper, secret.encode(), "sha256")
