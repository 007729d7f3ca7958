"""Converts errors to `google.rpc.Status`, and statuses to AIP-193 JSON with an HTTP status."""

import json
import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import grpc
from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from vesta_common import trace
from vesta_common.errors import (
    DeadlineExceeded,
    Internal,
    Unavailable,
    VestaError,
    from_status,
    is_transient,
    to_status,
)

DETAILS_KEY = "grpc-status-details-bin"
RETRY_AFTER_DEFAULT = timedelta(seconds=1)
HTTP_STATUS = {
    "OK": 200,
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "UNAUTHENTICATED": 401,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
}
# Reasons with a more specific HTTP status than their gRPC code.
_HTTP_STATUS_BY_REASON = {"BODY_TOO_LARGE": 413, "METHOD_NOT_ALLOWED": 405, "CONTENT_TYPE_UNKNOWN": 415}
_RETRYABLE = frozenset({429, 503})


class StatusError(Exception):
    """A status to return unchanged."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


@dataclass(frozen=True)
class Problem:
    """An HTTP error response."""

    http_status: int
    code: str
    body: bytes
    headers: dict[str, str]


def status_of(error: BaseException) -> status_pb2.Status:
    """Returns the status of an exception. Unknown exceptions become INTERNAL without their message."""
    if isinstance(error, StatusError):
        return error.status
    if isinstance(error, VestaError):
        return to_status(error)
    if isinstance(error, grpc.aio.AioRpcError):
        return _status_of_rpc_error(error)
    if isinstance(error, TimeoutError):
        return to_status(
            DeadlineExceeded("the deadline of the call has passed; retry, or use a longer deadline", reason="TIMEOUT")
        )
    if is_transient(error):
        return to_status(_unavailable("a backend service"))
    return to_status(_internal())


def problem_of(status: status_pb2.Status) -> Problem:
    """Returns the HTTP response for a status."""
    name = code_pb2.Code.Name(status.code)
    reason, retry_after = _details_of(status)
    http_status = _HTTP_STATUS_BY_REASON.get(reason, HTTP_STATUS[name])
    headers = {}
    if http_status in _RETRYABLE:
        headers["retry-after"] = str(max(1, math.ceil((retry_after or RETRY_AFTER_DEFAULT).total_seconds())))
    if name == "UNAUTHENTICATED":
        headers["www-authenticate"] = 'Bearer realm="vesta"'
    error = {
        "code": http_status,
        "message": status.message,
        "status": name,
        "details": [_detail(d) for d in status.details],
    }
    return Problem(http_status, name, json.dumps({"error": error}, ensure_ascii=False).encode(), headers)


def _detail(packed: Any) -> dict[str, Any]:
    try:
        return json_format.MessageToDict(packed)
    except TypeError:  # a detail of an unknown type
        return {"@type": packed.type_url}


def _details_of(status: status_pb2.Status) -> tuple[str, timedelta | None]:
    reason, retry_after = "", None
    for detail in status.details:
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta()
    return reason, retry_after


def _status_of_rpc_error(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """Returns the status sent by a backend; otherwise a status without the transport's message, which contains addresses."""
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            return status_pb2.Status.FromString(value)
    code = error.code()
    if code is grpc.StatusCode.UNAVAILABLE:
        return to_status(_unavailable("this service"))
    if code in {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL}:
        return to_status(_internal())
    message = error.details() or f"the call ended with {code.name}"
    status = status_pb2.Status(code=code_pb2.Code.Value(code.name), message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=code.name, domain="vesta"))
    return status


def overload_of(error: Exception) -> VestaError | None:
    """Returns the OVERLOADED error of a backend; None for other errors."""
    if not isinstance(error, grpc.aio.AioRpcError) or error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
        return None
    vesta_error = from_status(_status_of_rpc_error(error))
    return vesta_error if vesta_error.reason == "OVERLOADED" else None


def _unavailable(who: str) -> VestaError:
    return Unavailable(
        f"{who} does not respond; retry later",
        reason="BACKEND_UNAVAILABLE",
        retry_after=RETRY_AFTER_DEFAULT,
    )


def _internal() -> VestaError:
    return Internal(f"internal error; see the logs for trace {trace.trace_id()}")
