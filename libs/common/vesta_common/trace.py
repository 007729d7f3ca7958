"""Which request this is and who asked: W3C trace context and the caller, followed over gRPC and Kafka."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.propagate import extract, inject
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

CALLER_KEY = "x-vesta-caller"
ROLE_KEY = "x-vesta-role"
SERVICE_KEY = "x-vesta-service"

_caller: ContextVar[str] = ContextVar("caller", default="")
_role: ContextVar[str] = ContextVar("role", default="")
_service: ContextVar[str] = ContextVar("service", default="")
# Finds the process's provider when it is first used; asking for a tracer each time costs as much as the span.
_tracer = trace.get_tracer("vesta")


def start_tracing(service: str) -> None:
    """Makes spans of this process belong to the service. Spans are not exported; their ids link log lines."""
    trace.set_tracer_provider(TracerProvider(resource=Resource.create({"service.name": service})))


@contextmanager
def span(name: str, carrier: Mapping[str, str]) -> Iterator[None]:
    """Runs the block as a span below the one that the carrier (gRPC metadata, Kafka headers) names."""
    token = otel_context.attach(extract(dict(carrier)))
    try:
        with _tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False):
            yield
    finally:
        otel_context.detach(token)


def carrier() -> dict[str, str]:
    """The trace context of the current span, to send along; empty outside of one."""
    found: dict[str, str] = {}
    inject(found)
    return found


def trace_id() -> str:
    """The current trace's id, 32 hexadecimal digits; empty outside of one."""
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else ""


@contextmanager
def calling(caller: str, role: str = "", service: str = "") -> Iterator[None]:
    """Runs the block on behalf of a caller, and of the service that passes the call on, if one does."""
    caller_token, role_token, service_token = _caller.set(caller), _role.set(role), _service.set(service)
    try:
        yield
    finally:
        _caller.reset(caller_token)
        _role.reset(role_token)
        _service.reset(service_token)


def caller() -> str:
    """Who is asking: a member's name, such as `projects/acme/members/ada`, or `services/<word>`; empty where nobody is known."""
    return _caller.get()


def role() -> str:
    """The caller's role in the project, lower-case; empty where nobody is known."""
    return _role.get()


def service() -> str:
    """Which service of ours calls; empty where the call comes from outside, through the gateway."""
    return _service.get()


def metadata_of(pairs: Sequence[tuple[str, Any]] | None) -> dict[str, str]:
    """gRPC metadata as a dictionary of its text entries."""
    return {key: value for key, value in pairs or () if isinstance(value, str)}
