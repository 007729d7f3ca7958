"""What the SDK raises where a server's answer is an error."""

from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

# What a call ends with that lost its server; an answer of the platform's own always has a reason.
_BROKEN_OFF = ("INTERNAL", "UNKNOWN")
# Not among them: what time alone does not mend, such as STORAGE_FULL.
_OVERLOADS = ("OVERLOADED", "RATE_LIMITED", "CONCURRENCY_LIMITED", "MEMORY_LIMITED")
_OUTAGES = ("", "BACKEND_UNAVAILABLE", "ENGINE_UNAVAILABLE", "EVENTS_UNAVAILABLE", "STOPPING")


@dataclass(frozen=True)
class FieldViolation:
    """One field of the request that was refused, and why."""

    field: str
    description: str


@dataclass(eq=False)
class ApiError(Exception):
    """A server's refusal: what happened and what would work.

    Attributes:
        code: the gRPC status, such as `NOT_FOUND`.
        reason: the machine-readable reason, such as `DEPLOYMENT_NOT_READY`; empty where the server gave none.
        message: one sentence for people.
        metadata: the variables of the message.
        violations: the fields that were refused, for `INVALID_ARGUMENT`.
        retry_after_seconds: when to try again, where the server said so.
    """

    code: str
    message: str
    reason: str = ""
    metadata: dict[str, str] = field(default_factory=dict)
    violations: tuple[FieldViolation, ...] = ()
    retry_after_seconds: float | None = None

    @property
    def is_outage(self) -> bool:
        """True where the platform, or a part of it, could not answer at all, as while it is started again."""
        if self.code in _BROKEN_OFF:
            return not self.reason
        return self.code == "UNAVAILABLE" and self.reason in _OUTAGES

    @property
    def is_overload(self) -> bool:
        """True where the platform did nothing because it was busy, and said when to try again."""
        return self.code == "RESOURCE_EXHAUSTED" and self.reason in _OVERLOADS and self.retry_after_seconds is not None

    def __str__(self) -> str:
        label = f"{self.code} ({self.reason})" if self.reason else self.code
        fields = "".join(f"\n  {violation.field}: {violation.description}" for violation in self.violations)
        return f"{label}: {self.message}{fields}"


def from_rpc_error(error: grpc.RpcError) -> ApiError:
    """The `ApiError` that a failed call stands for, with the details the server sent along."""
    code = error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN
    message = (error.details() or "") if isinstance(error, grpc.Call) else str(error)
    found = ApiError(code=code.name, message=message or "the server gave no message")
    if not isinstance(error, grpc.Call):
        return found
    if code is grpc.StatusCode.UNAVAILABLE and not error.trailing_metadata():
        found.message = f"no response from the server ({message}); check the address, and that the platform is running"
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # the details do not fit the message, which gRPC has cut
        status = None
    for detail in status.details if status else ():
        _add_detail(found, detail)
    return found


def _add_detail(found: ApiError, detail: object) -> None:
    """Unpacks one `google.rpc` detail into the error."""
    info, bad, retry = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest(), error_details_pb2.RetryInfo()
    if detail.Unpack(info):  # type: ignore[attr-defined]
        found.reason, found.metadata = info.reason, dict(info.metadata)
    elif detail.Unpack(bad):  # type: ignore[attr-defined]
        found.violations = tuple(FieldViolation(v.field, v.description) for v in bad.field_violations)
    elif detail.Unpack(retry):  # type: ignore[attr-defined]
        found.retry_after_seconds = retry.retry_delay.ToTimedelta().total_seconds()
