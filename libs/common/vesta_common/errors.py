"""The error classes of all services, their gRPC status codes, and their error details (AIP-193).

    VestaError
    ├── InvalidArgument      the request is invalid in any state; `violations` name the fields
    ├── Unauthenticated      the caller has no valid credentials
    ├── PermissionDenied     the caller does not have permission
    ├── NotFound             the resource does not exist
    ├── AlreadyExists        the name is taken, or the action was already performed
    ├── FailedPrecondition   the current state does not allow the request; the message names the required state
    ├── Aborted              a concurrent change conflicts; read the resource again and retry
    ├── ResourceExhausted    a limit is reached; `retry_after` is the delay before a retry
    ├── DeadlineExceeded     the request took too long
    ├── Unavailable          a dependency does not respond; a retry may succeed
    ├── DataLoss             stored data is corrupt
    └── Internal             a bug in Vesta

Every message says what happened and suggests a fix. Variable values are in `metadata`. `reason` is machine-readable.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cache

import grpc
from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

DOMAIN = "vesta"
# gRPC may reject trailers above 8 KiB and always rejects trailers above 16 KiB. The message is sent twice: in `grpc-message`, where each
# non-ASCII byte takes three bytes, and in the details, where base64 turns three bytes into four.
MESSAGE_BYTES_MAX = 800
METADATA_BYTES_MAX = 800
VIOLATIONS_BYTES_MAX = 1600


@dataclass(frozen=True)
class Violation:
    """An invalid field of a request."""

    field: str
    description: str


class VestaError(Exception):
    """Base class of all errors that services return."""

    code = grpc.StatusCode.INTERNAL
    default_reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after = retry_after

    def __reduce__(self) -> tuple[object, ...]:
        """Makes the error picklable, so that it can cross process boundaries."""
        return (_rebuild, (type(self), self.message, self.reason, self.metadata, self.violations, self.retry_after))


def _rebuild(
    kind: type[VestaError],
    message: str,
    reason: str,
    metadata: dict[str, str],
    violations: tuple[Violation, ...],
    retry_after: timedelta | None,
) -> VestaError:
    return kind(message, reason=reason, metadata=metadata, violations=violations, retry_after=retry_after)


class InvalidArgument(VestaError):
    """The request is invalid in any state."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    default_reason = "INVALID_ARGUMENT"


class Unauthenticated(VestaError):
    """The caller has no valid credentials."""

    code = grpc.StatusCode.UNAUTHENTICATED
    default_reason = "UNAUTHENTICATED"


class PermissionDenied(VestaError):
    """The caller does not have permission."""

    code = grpc.StatusCode.PERMISSION_DENIED
    default_reason = "PERMISSION_DENIED"


class NotFound(VestaError):
    """The resource does not exist."""

    code = grpc.StatusCode.NOT_FOUND
    default_reason = "NOT_FOUND"


class AlreadyExists(VestaError):
    """The name is taken, or the action was already performed."""

    code = grpc.StatusCode.ALREADY_EXISTS
    default_reason = "ALREADY_EXISTS"


class FailedPrecondition(VestaError):
    """The current state does not allow the request."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    default_reason = "FAILED_PRECONDITION"


class Aborted(VestaError):
    """A concurrent change conflicts. The caller reads the resource again and retries."""

    code = grpc.StatusCode.ABORTED
    default_reason = "ABORTED"


class ResourceExhausted(VestaError):
    """A limit is reached."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    default_reason = "RESOURCE_EXHAUSTED"


class DeadlineExceeded(VestaError):
    """The request took too long."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"


class Unavailable(VestaError):
    """A dependency does not respond. A retry may succeed."""

    code = grpc.StatusCode.UNAVAILABLE
    default_reason = "UNAVAILABLE"


class DataLoss(VestaError):
    """Stored data is corrupt."""

    code = grpc.StatusCode.DATA_LOSS
    default_reason = "DATA_LOSS"


class Internal(VestaError):
    """A bug in Vesta."""

    code = grpc.StatusCode.INTERNAL
    default_reason = "INTERNAL"


_BY_CODE: dict[grpc.StatusCode, type[VestaError]] = {
    kind.code: kind
    for kind in (
        InvalidArgument,
        Unauthenticated,
        PermissionDenied,
        NotFound,
        AlreadyExists,
        FailedPrecondition,
        Aborted,
        ResourceExhausted,
        DeadlineExceeded,
        Unavailable,
        DataLoss,
        Internal,
    )
}
DISK_FULL = "53100"  # SQLSTATE
PROGRAM_LIMIT_EXCEEDED = "54"  # class of SQLSTATE: the statement exceeds a fixed limit, so a retry fails too
_TRANSIENT = (Unavailable, DeadlineExceeded, ResourceExhausted, Aborted)


def is_transient(error: BaseException) -> bool:
    """Returns True if a retry may succeed without any intervention."""
    if str(getattr(error, "sqlstate", None) or "").startswith(PROGRAM_LIMIT_EXCEEDED):
        return False
    return isinstance(error, (*_TRANSIENT, *_of_the_database()))


@cache
def _of_the_database() -> tuple[type[Exception], ...]:
    """Returns the errors of the PostgreSQL driver for an unreachable server. Empty without the `postgres` extra."""
    try:
        import psycopg
        import psycopg_pool
    except ModuleNotFoundError:
        return ()
    return (psycopg.OperationalError, psycopg_pool.PoolTimeout)


def to_status(error: VestaError) -> status_pb2.Status:
    """Converts an error to a `google.rpc.Status` with ErrorInfo, and with BadRequest and RetryInfo if they apply.

    Text that is too long for gRPC's trailers is truncated and ends with an ellipsis.
    """
    message = _cut(error.message, MESSAGE_BYTES_MAX)
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code.name), message=message)
    room = METADATA_BYTES_MAX // max(1, len(error.metadata))
    metadata = {name: _cut(value, room) for name, value in error.metadata.items()}
    _attach(status, error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    if error.violations:
        fields = [
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.description)
            for violation in _fitting(error.violations)
        ]
        _attach(status, error_details_pb2.BadRequest(field_violations=fields))
    if error.retry_after is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromTimedelta(error.retry_after)
        _attach(status, retry)
    return status


def _fitting(violations: Sequence[Violation]) -> Iterator[Violation]:
    """The first violations, as many as there is room for, at least one."""
    room = VIOLATIONS_BYTES_MAX
    for violation in violations:
        cut = Violation(_cut(violation.field, room // 2), _cut(violation.description, room // 2))
        yield cut
        room -= len(cut.field.encode()) + len(cut.description.encode())
        if room < VIOLATIONS_BYTES_MAX // 8:
            return


def _cut(text: str, bytes_max: int) -> str:
    encoded = text.encode(errors="replace")
    if len(encoded) <= bytes_max:
        return encoded.decode()
    return encoded[: max(0, bytes_max - 3)].decode(errors="ignore") + "…"


def _attach(status: status_pb2.Status, detail: object) -> None:
    packed = AnyMessage()
    packed.Pack(detail)  # type: ignore[arg-type]
    status.details.append(packed)


def from_status(status: status_pb2.Status) -> VestaError:
    """Converts a `google.rpc.Status` to an error."""
    code = grpc.StatusCode[code_pb2.Code.Name(status.code)]
    reason, retry_after = "", None
    metadata: dict[str, str] = {}
    violations: tuple[Violation, ...] = ()
    for detail in status.details:
        info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif detail.Unpack(bad):
            violations = tuple(Violation(v.field, v.description) for v in bad.field_violations)
        elif detail.Unpack(retry):
            retry_after = retry.retry_delay.ToTimedelta()
    kind = _BY_CODE.get(code, Internal)
    return kind(status.message, reason=reason, metadata=metadata, violations=violations, retry_after=retry_after)


def from_rpc_error(error: grpc.RpcError) -> VestaError:
    """Converts the failure of a call to a peer to an error."""
    if not isinstance(error, grpc.Call):
        return Internal(str(error))
    with suppress(ValueError):  # the message was truncated on the way and no longer matches the details
        status = rpc_status.from_call(error)
        if status is not None:
            return from_status(status)
    kind = _BY_CODE.get(error.code(), Internal)
    return kind(error.details() or f"the peer returned {error.code().name} without a message")
