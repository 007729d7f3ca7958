"""Generated ids: ULIDs, which sort by creation time, and deterministic ids."""

import hashlib

from ulid import ULID

_DETERMINISTIC_LENGTH = 26


def new_id() -> str:
    """Returns a new lower-case ULID."""
    return str(ULID()).lower()


def deterministic_id(*parts: str) -> str:
    """Returns an id that depends only on `parts`: `x` and 25 hexadecimal digits."""
    digest = hashlib.sha256("\x00".join(parts).encode()).hexdigest()
    return "x" + digest[: _DETERMINISTIC_LENGTH - 1]
