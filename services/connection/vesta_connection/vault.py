"""Encrypts the secrets of sources with the first of the operator's keys, so that keys can be rotated while the service runs.

Uses Fernet (AES-128-CBC and HMAC-SHA256) from `cryptography`. The id of a key is the beginning of its hash.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.fernet import Fernet, InvalidToken
from vesta_common.errors import FailedPrecondition

KEYS_SETTING = "VESTA_CONNECTION_SECRET_KEYS"
_KEY_ID_LENGTH = 8


@dataclass(frozen=True)
class Sealed:
    """A stored secret.

    Attributes:
        key_id: of the key that encrypts it; empty if there is no secret or if it is unencrypted (stored by an older version).
        token: the encrypted secret, or the unencrypted one.
    """

    key_id: str = ""
    token: str = ""

    def __bool__(self) -> bool:
        return bool(self.token)

    @property
    def is_plain(self) -> bool:
        """Whether the secret is unencrypted."""
        return bool(self.token) and not self.key_id


class Vault:
    """Encrypts and decrypts secrets.

    Args:
        keys: Fernet keys. The first key encrypts, all keys decrypt.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = {key_id(key): Fernet(key) for key in keys}
        self.first_key_id = key_id(keys[0]) if keys else ""

    def seal(self, secret: str) -> Sealed:
        """Encrypts a secret with the first key.

        Raises:
            FailedPrecondition: SECRET_KEYS_MISSING, there is no key.
        """
        if not secret:
            return Sealed()
        if not self._keys:
            raise FailedPrecondition(
                f"the service has no key to encrypt the secret of a source; ask an operator to set {KEYS_SETTING}",
                reason="SECRET_KEYS_MISSING",
            )
        token = self._keys[self.first_key_id].encrypt(secret.encode()).decode()
        return Sealed(self.first_key_id, token)

    def open(self, sealed: Sealed) -> str:
        """Decrypts a secret.

        Raises:
            FailedPrecondition: SECRET_UNREADABLE, its key is not among the keys.
        """
        if not sealed.key_id:
            return sealed.token
        if sealed.key_id not in self._keys:
            raise _unreadable(f"with the key {sealed.key_id}, which is not in {KEYS_SETTING}")
        try:
            return self._keys[sealed.key_id].decrypt(sealed.token).decode()
        except InvalidToken as error:
            raise _unreadable(
                f"with a key other than {sealed.key_id} of {KEYS_SETTING}, or was modified in the database"
            ) from error

    def is_current(self, sealed: Sealed) -> bool:
        """Whether the secret is empty or encrypted with the first key."""
        return not sealed or sealed.key_id == self.first_key_id != ""


def key_id(key: str) -> str:
    """Returns the id of a key for the database and messages. It does not reveal the key."""
    return hashlib.sha256(key.encode()).hexdigest()[:_KEY_ID_LENGTH]


def _unreadable(how: str) -> FailedPrecondition:
    return FailedPrecondition(
        f"the secret of the source is encrypted {how}; add the key there, or set the secret again",
        reason="SECRET_UNREADABLE",
    )
