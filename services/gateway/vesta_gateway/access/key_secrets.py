"""API keys' secrets: 256 random bits behind the word `vesta_`, of which only the SHA-256 is kept."""

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
    """A new secret, `vesta_` and 43 characters of base64url."""
    return WORD + base64.urlsafe_b64encode(secrets.token_bytes(SECRET_BYTES)).decode().rstrip("=")


def digest_of(secret: str) -> bytes:
    """What is kept of a secret. It has 256 bits of its own, so a slow hash would only slow us down."""
    return hashlib.sha256(secret.encode()).digest()


def same(one: bytes, other: bytes) -> bool:
    """Compares in constant time."""
    return hmac.compare_digest(one, other)


def presented(headers: Mapping[str, str]) -> str:
    """The secret that a request's headers or metadata present, `Authorization: Bearer …` or `x-api-key: …`; empty without one."""
    authorization = headers.get("authorization", "")
    if authorization[: len(_BEARER)].lower() == _BEARER:
        return authorization[len(_BEARER) :].strip()
    return headers.get("x-api-key", "").strip()
