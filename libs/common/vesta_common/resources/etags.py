"""Etags after AIP-154: a hash of the resource, so that an update of what has changed meanwhile is refused."""

import hashlib
from typing import Any, TypeVar

from vesta_common.errors import Aborted

M = TypeVar("M")

_LENGTH = 16


def etag_of(message: Any) -> str:
    """The strong etag of a resource: a hash of all it says but its etag."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.ClearField("etag")
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()[:_LENGTH]


def with_etag(message: M) -> M:
    """The same resource, with its etag set."""
    message.etag = etag_of(message)  # type: ignore[attr-defined]
    return message


def check_etag(given: str, current: Any) -> None:
    """Accepts an empty etag or the current one.

    Raises:
        Aborted: the resource has changed since it was read.
    """
    if given and given != etag_of(current):
        raise Aborted(
            f"{current.name} has changed since it was read; read it again and repeat the change",
            reason="ETAG_STALE",
            metadata={"name": current.name},
        )
