"""What every resource's methods share: a name is there or not, taken or not; made once; kept in a row; changed as mask and etag allow."""

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


def existing(thing: T | None, name: str, hint: str = "", *, reason: str = "RESOURCE_NOT_FOUND") -> T:
    """What was looked up under a name.

    Args:
        hint: what would work; where it is empty, to list the resources beside it.

    Raises:
        NotFound: it is None.
    """
    if thing is None:
        raise missing(name, hint, reason=reason)
    return thing


def missing(name: str, hint: str = "", *, reason: str = "RESOURCE_NOT_FOUND") -> NotFound:
    """The error of a name that nothing has; see `existing`."""
    hint = hint or f"list {name.rpartition('/')[0]} to see which there are"
    return NotFound(f"there is no {name}; {hint}", reason=reason, metadata={"name": name})


def taken(name: str, hint: str = "choose another id") -> AlreadyExists:
    """The error of a new resource whose name another one has."""
    return AlreadyExists(f"{name} is there already; {hint}", reason="RESOURCE_EXISTS", metadata={"name": name})


def find_answer(postgres: Postgres, request: Any, kind: type[M]) -> M | None:
    """What a repeat of a request is answered with; None where the request is new.

    Asked before a method looks at anything else, such as a peer that may be away by now; `run_once` then makes what is new.

    Raises:
        InvalidArgument: the request_id was used for another request.
    """
    return postgres.run(lambda connection: find_first(connection, request, kind)) if request.request_id else None


def run_once(postgres: Postgres, request: Any, kind: type[M], effect: Callable[[Connection], M]) -> M:
    """Runs `effect` in a transaction of its own; a repeat of the request is answered with the first one's answer.

    Args:
        kind: of the answer.
        effect: may run again where PostgreSQL asks for it, so it changes nothing but the database.

    Raises:
        InvalidArgument: the request_id was used for another request.
    """
    return postgres.run(lambda connection: once(connection, request, kind, lambda: effect(connection)))


def create_once(postgres: Postgres, request: Any, kind: type[M], name: str, create: Callable[[Connection], M]) -> M:
    """Makes the resource `name` as `run_once` does, where `create` inserts a row that must be the only one of that name.

    Raises:
        AlreadyExists: the name is taken.
        InvalidArgument: the request_id was used for another request.
    """
    try:
        return run_once(postgres, request, kind, create)
    except psycopg.errors.UniqueViolation as error:
        raise taken(name) from error


def body_of(resource: M, *apart: str) -> bytes:
    """What the column `body` keeps of a resource: all but its times, its etag, and the fields `apart`, which follow from elsewhere."""
    return without(resource, "create_time", "update_time", "etag", *apart).SerializeToString(deterministic=True)


def resource_of(kind: type[M], row: Mapping[str, Any]) -> M:
    """The resource of a row with a body and its times, etag and all."""
    resource = kind.FromString(bytes(row["body"]))
    set_times(resource, row, "create_time", "update_time")
    return with_etag(resource)


def revise(current: M, wanted: M, mask: FieldMask, mutable: Collection[str]) -> M:
    """A copy of `current` with what an Update asks for; see `apply_update` for what a mask means.

    Raises:
        Aborted: `wanted` bears a stale etag.
        InvalidArgument: the mask names a field that does not exist or cannot change.
    """
    check_etag(wanted.etag, current)  # type: ignore[attr-defined]  # every resource that can be updated has one
    return apply_update(current, wanted, mask, mutable)  # type: ignore[no-any-return]
