"""Secrets of API keys: `vesta_` and 256 random bits. Only the SHA-256 is stored."""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping

WORD = "vesta_"
SECRET_BYTES = 32
SECRET_CHARACTERS_MAX = 256
PREFIX_CHARACTERS = 12
_BEARER = "bearer "


def new_secret() -> str:
    """Returns a new secret: `vesta_` and 43 characters of base64url."""
    return WORD + base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).decode().rstrip("=")


def digest_of(secret: str) -> bytes:
    """Returns the digest to store. A secret has 256 bits of entropy, so a slow password hash is not needed."""
    return hashlib.sha256(secret.encode()).digest()


def digests_equal(one: bytes, other: bytes) -> bool:
    """Compares two digests in constant time."""
    return hmac.compare_digest(one, other)


def presented_secret(headers: Mapping[str, str]) -> str:
    """Returns the secret in the headers or metadata of a request, `Authorization: Bearer …` or `x-api-key: …`; empty without one."""
    authorization = headers.get("authorization", "")
    if authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return headers.get("x-api-key", "").strip()
