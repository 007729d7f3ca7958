"""Ids that the platform makes: ULIDs, which sort by time, and ids that follow from what they name."""

import hashlib

from ulid import ULID

_DETERMINISTIC_LENGTH = 26


def new_id() -> str:
    """A new lower-case ULID."""
    return str(ULID()).lower()


def deterministic_id(*parts: str) -> str:
    """The same id for the same parts, on every machine: `x` and 25 hexadecimal digits."""
    digest = hashlib.sha256("\x00".join(parts).encode()).hexdigest()
    return "x" + digest[: _DETERMINISTIC_LENGTH - 1]
