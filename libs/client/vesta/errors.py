"""The errors that the SDK raises."""

from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# Reasons of calls that lost their server; errors of the platform itself always have another reason.
_BROKEN_OFF = ("INTERNAL", "UNKNOWN")
# Errors that do not resolve with time, such as STORAGE_FULL, are not included.
_OVERLOADS = ("OVERLOADED", "RATE_LIMITED", "CONCURRENCY_LIMITED", "MEMORY_LIMITED")
_OUTAGES = ("", "BACKEND_UNAVAILABLE", "ENGINE_UNAVAILABLE", "EVENTS_UNAVAILABLE", "STOPPING")


@dataclass(frozen=True)
class FieldViolation:
    """One invalid field of the request, with the reason."""

    field: str
    description: str


@dataclass(eq=False)
class ApiError(Exception):
    """An error of the server: what happened, and a suggested fix.

    Attributes:
        code: the gRPC status, such as `NOT_FOUND`.
        reason: the machine-readable reason, such as `DEPLOYMENT_NOT_READY`; empty if the server sent none.
        message: a description in one sentence.
        metadata: the variables of the message.
        violations: the invalid fields, for `INVALID_ARGUMENT`.
        retry_after_seconds: the retry delay, if the server sent one.
    """

    code: str
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after_seconds: float | None = None

    @property
    def is_outage(self) -> bool:
        """Whether the platform, or a service of it, is unavailable, for example during a restart."""
        if self.code in _BROKEN_OFF:
            return not self.reason
        return self.code == "UNAVAILABLE" and self.reason in _OUTAGES

    @property
    def is_overload(self) -> bool:
        """Whether the platform rejected the call because of overload, with a retry delay."""
        return self.code == "RESOURCE_EXHAUSTED" and self.reason in _OVERLOADS and self.retry_after_seconds is not None

    def __str__(self) -> str:
        label = f"{self.code} ({self.reason})" if self.reason else self.code
        fields = "".join(f"\n  {violation.field}: {violation.description}" for violation in self.violations)
        return f"{label}: {self.message}{fields}"


def from_rpc_error(error: grpc.RpcError) -> ApiError:
    """Converts a failed call to an `ApiError`, with the details of the server."""
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    message = (error.details() or "") if isinstance(error, grpc.Call) else str(error)
    api_error = ApiError(code=code.name, message=message or "the server gave no message")
    if not isinstance(error, grpc.Call):
        return api_error
    if code is grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
        api_error.message = (
            f"no response from the server ({message}); check the address, and that the platform is running"
        )
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the details do not match the message, which gRPC has truncated
        status = None
    for detail in status.details if status else ():
        _add_detail(api_error, detail)
    return api_error


def _add_detail(api_error: ApiError, detail: object) -> None:
    """Adds one `google.rpc` detail to the error."""
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    if detail.Unpack(info):  # type: ignore[attr-defined]
        api_error.reason, api_error.metadata = info.reason, dict(info.metadata)
    elif detail.Unpack(bad):  # type: ignore[attr-defined]
        api_error.violations = tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
    elif detail.Unpack(retry):  # type: ignore[attr-defined]
        api_error.retry_after_seconds = retry.retry_delay.ToTimedelta().total_seconds()
