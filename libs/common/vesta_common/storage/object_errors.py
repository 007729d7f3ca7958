"""Errors of S3 clients as VestaErrors."""

from collections.abc import Callable

from botocore.exceptions import ClientError

from vesta_common.disk_space import DiskSpace
from vesta_common.errors import FailedPrecondition, NotFound, Unavailable, VestaError
from vesta_common.storage.storage_guard import storage_full

_MISSING = frozenset({"NoSuchKey", "NotFound", "404"})
_EXISTING = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412", "409"})
_EXISTING_BUCKET = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
_DENIED_STATUS = frozenset({401, 403})
# Error codes of MinIO, Ceph and others. SeaweedFS returns InternalError.
_FULL = frozenset({"XMinioStorageFull", "InsufficientStorage", "QuotaExceeded"})
_FULL_STATUS = 507


def to_vesta_error(error: Exception, key: str, bucket: str, find_space: Callable[[], DiskSpace | None]) -> VestaError:
    """Converts an error of a client: NotFound, FailedPrecondition, ResourceExhausted (STORAGE_FULL) or Unavailable.

    Args:
        key: the key of the object; empty for requests about the bucket.
        find_space: returns the space of the store's disk if it is known.
    """
    where = {"key": key, "bucket": bucket}
    if isinstance(error, ClientError):
        if _code(error) in _MISSING:
            return NotFound(f"the object {key} does not exist", reason="OBJECT_NOT_FOUND", metadata=where)
        if _code(error) in _FULL or _status(error) == _FULL_STATUS:
            return storage_full(find_space())
        if _status(error) in _DENIED_STATUS:
            return FailedPrecondition(
                f"the object store denies access ({_code(error)}); check the S3 keys and their "
                "permissions on the bucket",
                reason="OBJECT_STORE_ACCESS_DENIED",
                metadata=where,
            )
    return Unavailable(
        f"the object store does not respond for {key or bucket}: {error}",
        reason="OBJECT_STORE_UNAVAILABLE",
        metadata=where,
    )


def says_object_exists(error: ClientError) -> bool:
    """Returns whether a conditional write failed because the object exists."""
    return _code(error) in _EXISTING


def says_bucket_exists(error: ClientError) -> bool:
    """Returns whether the creation of a bucket failed because it exists."""
    return _code(error) in _EXISTING_BUCKET


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int | None:
    status: int | None = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status
