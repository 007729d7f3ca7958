"""Server interceptors: caller identity, tracing, validation, error mapping, logging, metrics.

Requests that could not start in time are rejected instead of queued. Requests whose deadline has passed are not started. Health checks run
on a separate thread pool and are always answered.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message
from grpc_status import rpc_status
from opentelemetry.trace import SpanKind

from vesta_common import deadline, trace
from vesta_common.errors import DISK_FULL, Internal, Unavailable, VestaError, is_transient, to_status
from vesta_common.identity import Claims, Identity, audience_of
from vesta_common.identity.callers import check_call, check_project
from vesta_common.metrics import RpcMetrics
from vesta_common.rpc.admission import Admission, AdmissionMetrics, deadline_passed
from vesta_common.rpc.outline import Outline, find_outline, handling, handling_stream
from vesta_common.rpc.validation import validate
from vesta_common.storage.storage_guard import storage_full

log = structlog.get_logger()

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
OUTER_SERVICE = "gateway"
ANONYMOUS = Claims(service="", caller="", role="", project="")
_KINDS = {
    (False, False): ("unary_unary", grpc.unary_unary_rpc_method_handler),
    (False, True): ("unary_stream", grpc.unary_stream_rpc_method_handler),
    (True, False): ("stream_unary", grpc.stream_unary_rpc_method_handler),
    (True, True): ("stream_stream", grpc.stream_stream_rpc_method_handler),
}
"""By whether requests and responses are streams: the attribute of a handler with its behavior, and what makes such a handler."""


class RpcInterceptor(grpc.ServerInterceptor):
    """Wraps all handlers, unary and streaming. Health checks need no token and are not measured.

    Args:
        identity: the service's identity; verifies the token of each call.
        admission: admission control of the server's threads.
        side_pool: thread pool for rejections and health checks, which must be fast when the server is busy.
        outlined: methods with one response whose handler reads the files of requests with `vesta_common.rpc.outline.contents`.
    """

    def __init__(
        self,
        identity: Identity,
        metrics: RpcMetrics,
        admission: Admission,
        admission_metrics: AdmissionMetrics,
        side_pool: ThreadPoolExecutor,
        outlined: Collection[str] = (),
    ) -> None:
        self._identity = identity
        self._metrics = metrics
        self._admission = admission
        self._admission_metrics = admission_metrics
        self._side_pool = side_pool
        self._outlined = outlined

    def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        """Returns the wrapped handler."""
        handler = continuation(details)
        if handler is None:
            return None
        method = details.method
        if method == HEALTH_CHECK:
            check = self._on_side_pool(handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(check, handler.request_deserializer, handler.response_serializer)
        if method == HEALTH_WATCH:
            watch = self._watch_on_side_pool(handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(
                watch, handler.request_deserializer, handler.response_serializer
            )
        metadata = trace.metadata_of(details.invocation_metadata)
        claims, rejection = self._enter(method, metadata)
        name, kind = _KINDS[handler.request_streaming, handler.response_streaming]
        behavior = _raising(rejection) if rejection else self._in_time(claims, getattr(handler, name))
        wrap = self._streaming if handler.response_streaming else self._unary
        wrapped = wrap(method, metadata, claims, behavior)
        deserializer = handler.request_deserializer
        if method in self._outlined:
            of_outline = _of_outlines if handler.request_streaming else _of_outline
            wrapped, deserializer = of_outline(wrapped), _outline_deserializer(deserializer)
        if rejection:
            wrapped = self._on_side_pool(wrapped)
        return kind(wrapped, deserializer, handler.response_serializer)

    def _enter(self, method: str, metadata: Mapping[str, str]) -> tuple[Claims, VestaError | None]:
        """Authenticates and admits a call. Returns its claims, and the error if the call is rejected."""
        claims = ANONYMOUS
        try:
            claims = self._identify(method, metadata)
            self._admission.check()
        except VestaError as error:
            return claims, error
        return claims, None

    def _identify(self, method: str, metadata: Mapping[str, str]) -> Claims:
        audience = audience_of(method)
        claims = self._identity.verify(metadata, audience)
        check_call(claims.service, audience, claims.role)
        return claims

    def _in_time(self, claims: Claims, behavior: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a handler: validates the request, measures the wait for a thread, and rejects calls whose deadline has passed."""
        arrival = time.perf_counter()

        def run(request: Any, context: grpc.ServicerContext) -> Any:
            self._admission_metrics.observe(self._admission.queue, time.perf_counter() - arrival)
            remaining = context.time_remaining()
            if not context.is_active() or (remaining is not None and remaining <= 0):
                self._admission_metrics.count(self._admission.queue, "expired")
                raise deadline_passed()
            return behavior(_checked(request, claims), context)

        return run

    def _on_side_pool(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        """Runs a handler on the side pool."""

        def run(request: Any, context: grpc.ServicerContext) -> Any:
            return behavior(request, context)

        run.experimental_thread_pool = self._side_pool  # type: ignore[attr-defined] # gRPC reads this attribute
        return run

    def _watch_on_side_pool(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        """Runs the health servicer's Watch on the side pool, because peers wait for its first response. It holds no thread."""

        def run(request: Any, context: grpc.ServicerContext, send_response_callback: Callable[[Any], None]) -> None:
            behavior(request, context, send_response_callback)

        run.experimental_thread_pool = self._side_pool  # type: ignore[attr-defined] # gRPC reads this attribute
        run.experimental_non_blocking = True  # type: ignore[attr-defined] # gRPC reads this attribute
        return run

    def _unary(
        self, method: str, metadata: Mapping[str, str], claims: Claims, behavior: Callable[..., Any]
    ) -> Callable[..., Any]:
        def run(request: Any, context: grpc.ServicerContext) -> Any:
            call = _Call(method, context, self._metrics)
            with (
                trace.span(method, metadata, SpanKind.SERVER),
                _calling(claims),
                deadline.within(context.time_remaining()),
            ):
                try:
                    response = behavior(request, context)
                except Exception as error:  # noqa: BLE001 - every error becomes a status for the client
                    call.fail(error)
                    return None  # reached only if the client has disconnected
                call.succeed()
                return response

        return run

    def _streaming(
        self, method: str, metadata: Mapping[str, str], claims: Claims, behavior: Callable[..., Any]
    ) -> Callable[..., Any]:
        def run(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            call = _Call(method, context, self._metrics)
            with (
                trace.span(method, metadata, SpanKind.SERVER),
                _calling(claims),
                deadline.within(context.time_remaining()),
            ):
                try:
                    yield from behavior(request, context)
                except GeneratorExit:  # the client has stopped reading
                    call.cancel()
                    raise
                except Exception as error:  # noqa: BLE001 - every error becomes a status for the client
                    call.fail(error)
                    return
                call.succeed()

        return run


def _of_outline(behavior: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a handler of outlines for a handler of messages."""

    def run(request: Outline, context: grpc.ServicerContext) -> Any:
        with handling(request) as message:
            return behavior(message, context)

    return run


def _of_outlines(behavior: Callable[..., Any]) -> Callable[..., Any]:
    """Like `_of_outline`, for a request stream."""

    def run(requests: Iterator[Outline], context: grpc.ServicerContext) -> Any:
        with handling_stream(requests) as messages:
            return behavior(messages, context)

    return run


def _outline_deserializer(deserialize: Any) -> Callable[[bytes], Outline]:
    """Returns a deserializer of outlines for `FromString` of a message type."""
    return lambda serialized: find_outline(deserialize.__self__, serialized) or Outline(deserialize(serialized), ())


def _raising(error: VestaError) -> Callable[..., Any]:
    """Returns a handler that raises `error`."""

    def reject(request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ARG001 - a handler's signature
        raise error

    return reject


def _calling(claims: Claims) -> AbstractContextManager[None]:
    """Sets the caller from the token. The gateway forwards external calls, so it does not count as the calling service."""
    return trace.calling(claims.caller, claims.role, "" if claims.service == OUTER_SERVICE else claims.service)


def _checked(request: Any, claims: Claims) -> Any:
    """Validates a request. Of a request stream, only the first message is validated: the others contain bytes only."""
    if isinstance(request, Message):
        validate(request)
        check_project(claims.project, request)
        return request
    return _first_checked(request, claims)


def _first_checked(messages: Iterator[Message], claims: Claims) -> Iterator[Message]:
    for index, message in enumerate(messages):
        if index == 0:
            _checked(message, claims)
        yield message


class _Call:
    """Log line and metrics of one RPC."""

    def __init__(self, method: str, context: grpc.ServicerContext, metrics: RpcMetrics) -> None:
        self._method = method
        self._context = context
        self._metrics = metrics
        self._start = time.perf_counter()

    def succeed(self) -> None:
        """Records success."""
        self._end("OK")
        log.debug("rpc", method=self._method, seconds=round(time.perf_counter() - self._start, 4))

    def cancel(self) -> None:
        """Records that the client cancelled the call."""
        self._end("CANCELLED")

    def fail(self, error: Exception) -> None:
        """Ends the RPC with the status of the error, by raising gRPC's abort exception."""
        if not self._context.is_active() and not isinstance(error, VestaError):
            self.cancel()
            return
        if isinstance(error, NotImplementedError):
            self._end(grpc.StatusCode.UNIMPLEMENTED.name)
            self._context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{self._method} is not implemented by this service")
        vesta_error = _as_vesta_error(error)
        self._end(vesta_error.code.name)
        if isinstance(vesta_error, Internal):
            log.exception("rpc_failed", method=self._method, exc_info=error)
        else:
            log.info(
                "rpc_rejected",
                method=self._method,
                code=vesta_error.code.name,
                reason=vesta_error.reason,
                message=vesta_error.message,
            )
        self._context.abort_with_status(rpc_status.to_status(to_status(vesta_error)))

    def _end(self, code: str) -> None:
        trace.end_call(code)
        self._metrics.observe(self._method, code, time.perf_counter() - self._start)


def _as_vesta_error(error: Exception) -> VestaError:
    """Maps any error to a VestaError: UNAVAILABLE for an unreachable database, INTERNAL without the message for unknown errors."""
    if isinstance(error, VestaError):
        return error
    if getattr(error, "sqlstate", None) == DISK_FULL:
        return storage_full(None)
    if is_transient(error):
        return Unavailable("a backend of the platform does not respond; retry later", reason="ENGINE_UNAVAILABLE")
    return Internal(f"internal error; see the log of the service for trace {trace.trace_id()}", reason="INTERNAL")
