"""Etags (AIP-154): a hash of the resource, so that updates based on an outdated read are rejected."""

import hashlib
from typing import Any, TypeVar

from vesta_common.errors import Aborted

M = TypeVar("M")

_LENGTH = 16


def etag_of(message: Any) -> str:
    """Returns the strong etag of a resource: a hash of all its fields except the etag."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.ClearField("etag")
    return hashlib.sha256(copy.SerializeToString(deterministic=True)).hexdigest()[:_LENGTH]


def with_etag(message: M) -> M:
    """Sets the etag of a resource and returns the resource."""
    message.etag = etag_of(message)  # type: ignore[attr-defined]
    return message


def check_etag(given: str, current: Any) -> None:
    """Checks that the given etag is empty or current.

    Raises:
        Aborted: ETAG_STALE, the resource has changed since it was read.
    """
    if given and given != etag_of(current):
        raise Aborted(
            f"{current.name} has changed since it was read; read it again and retry the update",
            reason="ETAG_STALE",
            metadata={"name": current.name},
        )
