"""Trace context and caller of the current request: W3C Trace Context, propagated over gRPC and Kafka."""

import random
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, Sampler
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

T = TypeVar("T")

_caller: ContextVar[str] = ContextVar("caller", default="")
_role: ContextVar[str] = ContextVar("role", default="")
_service: ContextVar[str] = ContextVar("service", default="")
LINKS_MAX = 64
# Status codes that indicate a server error, by OpenTelemetry's conventions for gRPC.
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
# Resolves the process's provider on first use. Requesting a tracer for every span would cost as much as the span.
_tracer = trace.get_tracer("vesta")
_PROPAGATOR = TraceContextTextMapPropagator()


@dataclass
class _Tracing:
    """The tracing of this process."""

    has_exporter: bool = True


_tracing = _Tracing()


def start_tracing(service: str, exporting: SpanProcessor | None = None, sampler: Sampler = ALWAYS_OFF) -> None:
    """Configures tracing for the process. Without a processor, spans have ids, which link log lines, but are not recorded.

    Args:
        exporting: exports the spans that the sampler selects (see `vesta_common.rpc.trace_export`).
    """
    _tracing.has_exporter = exporting is not None
    described = {"service.name": service, "service.namespace": "vesta", "service.instance.id": socket.gethostname()}
    provider = TracerProvider(sampler=sampler, resource=Resource.create(described))
    if exporting is not None:
        provider.add_span_processor(exporting)
    trace.set_tracer_provider(provider)


@contextmanager
def span(
    name: str, carrier: Mapping[str, str], kind: SpanKind = SpanKind.INTERNAL, also: Sequence[Mapping[str, str]] = ()
) -> Iterator[None]:
    """Runs the block in a span whose parent is the span in the carrier (gRPC metadata, Kafka headers).

    Args:
        also: carriers of other traces that the block belongs to; the first 64 are linked.
    """
    parent = _PROPAGATOR.extract(carrier)
    token = otel_context.attach(parent if _tracing.has_exporter else _with_new_ids(parent))
    try:
        if _tracing.has_exporter:
            with _recorded(name, kind, also):
                yield
        else:
            yield
    finally:
        otel_context.detach(token)


def _with_new_ids(parent: Context) -> Context:
    """Returns the context of a child span that is not recorded, in a fraction of the time that a tracer takes."""
    above = trace.get_current_span(parent).get_span_context()
    ids = SpanContext(
        above.trace_id or random.getrandbits(128),
        random.getrandbits(64),
        is_remote=False,
        trace_state=above.trace_state,
    )
    return trace.set_span_in_context(NonRecordingSpan(ids), parent)


@contextmanager
def engine_span(name: str) -> Iterator[dict[str, str]]:
    """Runs a call to an engine in its own span, if the trace is recorded. Yields the carrier to send along."""
    if not trace.get_current_span().is_recording():
        yield carrier()
        return
    with _recorded(name, SpanKind.CLIENT, ()):
        yield carrier()


@contextmanager
def _recorded(name: str, kind: SpanKind, also: Sequence[Mapping[str, str]]) -> Iterator[None]:
    """Starts a child span. If the block raises, the span is marked as failed, with the type of the error but not its message."""
    with _tracer.start_as_current_span(
        name, kind=kind, record_exception=False, set_status_on_exception=False
    ) as current:
        if also and current.is_recording():
            for other in also[:LINKS_MAX]:
                current.add_link(trace.get_current_span(_PROPAGATOR.extract(other)).get_span_context())
        try:
            yield
        except Exception as error:
            current.set_attribute("error.type", type(error).__name__)
            current.set_status(StatusCode.ERROR)
            raise


def end_call(code: str) -> None:
    """Records the gRPC status of a call on the current span."""
    current = trace.get_current_span()
    if current.is_recording():
        current.set_attribute("rpc.system.name", "grpc")
        current.set_attribute("rpc.response.status_code", code)
        if code in _FAULTS:
            current.set_status(StatusCode.ERROR)


def carried(function: Callable[..., T]) -> Callable[..., T]:
    """Wraps a function so that it runs in the current trace context on any thread."""
    context = otel_context.get_current()

    def run(*arguments: Any) -> T:
        token = otel_context.attach(context)
        try:
            return function(*arguments)
        finally:
            otel_context.detach(token)

    return run


def carrier() -> dict[str, str]:
    """Returns the trace context of the current span, for propagation; empty without a span."""
    context: dict[str, str] = {}
    _PROPAGATOR.inject(context)
    return context


def trace_id() -> str:
    """Returns the current trace id, 32 hexadecimal digits; empty without a span."""
    context = trace.get_current_span().get_span_context()
    return format(context.trace_id, "032x") if context.is_valid else ""


@contextmanager
def calling(caller: str, role: str = "", service: str = "") -> Iterator[None]:
    """Runs the block on behalf of a caller, and of the service that forwards the call, if any."""
    caller_token, role_token, service_token = _caller.set(caller), _role.set(role), _service.set(service)
    try:
        yield
    finally:
        _caller.reset(caller_token)
        _role.reset(role_token)
        _service.reset(service_token)


def caller() -> str:
    """Returns the caller: a member such as `projects/acme/members/ada`, or `services/<service>`; empty if unknown."""
    return _caller.get()


def role() -> str:
    """Returns the caller's role in the project in lower case; empty if unknown."""
    return _role.get()


def service() -> str:
    """Returns the calling Vesta service; empty for external calls through the gateway."""
    return _service.get()


def metadata_of(pairs: Sequence[tuple[str, Any]] | None) -> dict[str, str]:
    """Returns the text entries of gRPC metadata as a dictionary."""
    return {key: value for key, value in pairs or () if isinstance(value, str)}
