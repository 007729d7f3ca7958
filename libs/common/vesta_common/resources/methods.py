"""Building blocks of resource methods: not-found and already-exists errors, idempotent creation, storage in a row, updates."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import psycopg
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message

from vesta_common.errors import AlreadyExists, NotFound
from vesta_common.messages import set_times, without
from vesta_common.resources.etags import check_etag, with_etag
from vesta_common.resources.idempotency import find_first, once
from vesta_common.resources.masks import apply_update
from vesta_common.storage.postgres import Connection, Postgres

T = TypeVar("T")
M = TypeVar("M", bound=Message)


def existing(resource: T | None, name: str, hint: str = "", *, reason: str = "RESOURCE_NOT_FOUND") -> T:
    """Returns `resource`, the result of looking up a name, if it is not None.

    Args:
        hint: the suggested fix; if empty, to list the resources of the collection.

    Raises:
        NotFound: `resource` is None.
    """
    if resource is None:
        raise missing(name, hint, reason=reason)
    return resource


def missing(name: str, hint: str = "", *, reason: str = "RESOURCE_NOT_FOUND") -> NotFound:
    """Returns the error for a resource that does not exist; see `existing`."""
    hint = hint or f"list {name.rpartition('/')[0]} to see the existing ones"
    return NotFound(f"{name} does not exist; {hint}", reason=reason, metadata={"name": name})


def taken(name: str, hint: str = "choose another id") -> AlreadyExists:
    """Returns the error for a new resource whose name is taken."""
    return AlreadyExists(f"{name} already exists; {hint}", reason="RESOURCE_EXISTS", metadata={"name": name})


def find_answer(postgres: Postgres, request: Any, kind: type[M]) -> M | None:
    """Returns the stored response of a repeated request; None for a new request.

    Call it before anything else, such as a call to a peer that may be unavailable at the repeat. Use `run_once` for a new request.

    Raises:
        InvalidArgument: REQUEST_ID_REUSED, the id was used for a different request.
    """
    return postgres.run(lambda connection: find_first(connection, request, kind)) if request.request_id else None


def run_once(postgres: Postgres, request: Any, kind: type[M], effect: Callable[[Connection], M]) -> M:
    """Runs `effect` in its own transaction. A repeated request returns the stored response of the first one.

    Args:
        kind: the response type.
        effect: must change only the database, because PostgreSQL may require the transaction to be retried.

    Raises:
        InvalidArgument: REQUEST_ID_REUSED, the id was used for a different request.
    """
    return postgres.run(lambda connection: once(connection, request, kind, lambda: effect(connection)))


def create_once(postgres: Postgres, request: Any, kind: type[M], name: str, create: Callable[[Connection], M]) -> M:
    """Creates the resource `name` as `run_once` does. `create` inserts a row with a unique name.

    Raises:
        AlreadyExists: the name is taken.
        InvalidArgument: REQUEST_ID_REUSED, the id was used for a different request.
    """
    try:
        return run_once(postgres, request, kind, create)
    except psycopg.errors.UniqueViolation as error:
        raise taken(name) from error


def body_of(resource: M, *apart: str) -> bytes:
    """Serializes a resource for the column `body`, without its times, its etag, and the fields `apart`, which are stored elsewhere."""
    return without(resource, "create_time", "update_time", "etag", *apart).SerializeToString(deterministic=True)


def resource_of(kind: type[M], row: Mapping[str, Any]) -> M:
    """Restores a resource from a row with a body and times. Sets its etag."""
    resource = kind.FromString(bytes(row["body"]))
    set_times(resource, row, "create_time", "update_time")
    return with_etag(resource)


def revise(current: M, requested: M, mask: FieldMask, mutable: Collection[str]) -> M:
    """Returns a copy of `current` with the changes of an Update request; see `apply_update` for the meaning of the mask.

    Raises:
        Aborted: the etag of `requested` is stale.
        InvalidArgument: the mask has a field that does not exist or is immutable.
    """
    check_etag(requested.etag, current)  # type: ignore[attr-defined]  # every resource that can be updated has one
    return apply_update(current, requested, mask, mutable)  # type: ignore[no-any-return]
