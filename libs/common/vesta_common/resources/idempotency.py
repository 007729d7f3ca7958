"""Idempotent requests (AIP-155): a repeated request with the same request_id returns the first response."""

import hashlib
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar

from vesta_common import trace
from vesta_common.errors import InvalidArgument

M = TypeVar("M")

RETENTION = timedelta(days=7)


def once(connection: Any, request: Any, response_type: type[M], effect: Callable[[], M]) -> M:
    """Runs `effect` for the first request with its request_id and stores the response, in the caller's transaction.

    A repeated or concurrent request returns the response of the first one. Without a request_id the effect always runs.

    Raises:
        InvalidArgument: REQUEST_ID_REUSED, the id was used for a different request.
    """
    if not request.request_id:
        return effect()
    inserted = connection.execute(
        "INSERT INTO request_log (method, request_id, request_digest) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (_method(request), request.request_id, _digest(request)),
    ).rowcount
    if not inserted:
        return find_first(connection, request, response_type)  # type: ignore[return-value]  # what conflicts is there
    response = effect()
    connection.execute(
        "UPDATE request_log SET response = %s WHERE method = %s AND request_id = %s",
        (response.SerializeToString(), _method(request), request.request_id),  # type: ignore[attr-defined]
    )
    return response


def find_first(connection: Any, request: Any, response_type: type[M]) -> M | None:
    """Returns the stored response of a repeated request; None for a new request.

    Raises:
        InvalidArgument: REQUEST_ID_REUSED, the id was used for a different request.
    """
    row = connection.execute(
        "SELECT request_digest, response FROM request_log WHERE method = %s AND request_id = %s",
        (_method(request), request.request_id),
    ).fetchone()
    if row is None:
        return None
    if bytes(row["request_digest"]) != _digest(request):
        raise InvalidArgument(
            f"request_id {request.request_id!r} was used for another request; use a new one",
            reason="REQUEST_ID_REUSED",
            metadata={"request_id": request.request_id},
        )
    return response_type.FromString(bytes(row["response"]))  # type: ignore[attr-defined, no-any-return]


def prune(connection: Any, now: datetime, retention: timedelta = RETENTION, entries_max: int | None = None) -> int:
    """Deletes requests older than `retention`. Returns the number of deleted entries.

    Args:
        entries_max: the batch size; None for no limit. Entries locked by another transaction are skipped, so that replicas can prune
            concurrently.
    """
    deleted = connection.execute(
        "DELETE FROM request_log WHERE (method, request_id) IN (SELECT method, request_id FROM request_log"
        " WHERE create_time < %s ORDER BY create_time LIMIT %s FOR UPDATE SKIP LOCKED)",
        (now - retention, entries_max),
    )
    return int(deleted.rowcount)


def _method(request: Any) -> str:
    """Returns the scope of a request id: method, parent or resource, and caller. Callers cannot affect each other's requests."""
    scope = getattr(request, "parent", "") or getattr(request, "name", "")
    return f"{request.DESCRIPTOR.full_name} {scope} {trace.caller()}"


def _digest(request: Any) -> bytes:
    return hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
