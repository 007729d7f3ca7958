"""What happens around every RPC of a server: who calls, trace, validation, errors with details, one log line, one measurement.

More than can begin in time are refused rather than queued, what nobody waits for any more is not begun, and health is answered
whatever else is going on.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any

import grpc
import structlog
from google.protobuf.message import Message
from grpc_status import rpc_status
from opentelemetry.trace import SpanKind

from vesta_common import trace
from vesta_common.errors import DISK_FULL, Internal, Unavailable, VestaError, is_transient, to_status
from vesta_common.identity import Claims, Identity, audience_of
from vesta_common.identity.callers import check_call, check_project
from vesta_common.metrics import RpcMetrics
from vesta_common.rpc.admission import Admission, AdmissionMetrics, deadline_passed
from vesta_common.rpc.validation import validate
from vesta_common.storage.storage_guard import storage_full

log = structlog.get_logger()

HEALTH_CHECK = "/grpc.health.v1.Health/Check"
HEALTH_WATCH = "/grpc.health.v1.Health/Watch"
OUTER_SERVICE = "gateway"
NOBODY = Claims(service="", caller="", role="", project="")


class RpcInterceptor(grpc.ServerInterceptor):
    """Wraps every handler of our own services, unary and streaming; health passes unmeasured, and needs no token.

    Args:
        identity: ours; it verifies the token of each call.
        admission: the queue for the server's threads.
        side_pool: runs what must be quick when it is: refusals and health checks.
    """

    def __init__(
        self,
        identity: Identity,
        metrics: RpcMetrics,
        admission: Admission,
        admission_metrics: AdmissionMetrics,
        side_pool: ThreadPoolExecutor,
    ) -> None:
        self._identity = identity
        self._metrics = metrics
        self._admission = admission
        self._admission_metrics = admission_metrics
        self._side_pool = side_pool

    def intercept_service(self, continuation: Callable[..., Any], details: Any) -> Any:
        """Answers the handler, wrapped."""
        handler = continuation(details)
        if handler is None:
            return None
        method = details.method
        if method == HEALTH_CHECK:
            check = self._aside(handler.unary_unary)
            return grpc.unary_unary_rpc_method_handler(check, handler.request_deserializer, handler.response_serializer)
        if method == HEALTH_WATCH:
            watch = self._watch_aside(handler.unary_stream)
            return grpc.unary_stream_rpc_method_handler(
                watch, handler.request_deserializer, handler.response_serializer
            )
        claims, refused = self._enter(details)
        if handler.response_streaming:
            kind = (
                grpc.stream_stream_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_stream_rpc_method_handler
            )
            behavior = handler.stream_stream if handler.request_streaming else handler.unary_stream
            wrapped = self._streaming(method, claims, _raising(refused) if refused else self._in_time(claims, behavior))
        else:
            kind = (
                grpc.stream_unary_rpc_method_handler
                if handler.request_streaming
                else grpc.unary_unary_rpc_method_handler
            )
            behavior = handler.stream_unary if handler.request_streaming else handler.unary_unary
            wrapped = self._unary(method, claims, _raising(refused) if refused else self._in_time(claims, behavior))
        if refused:
            wrapped = self._aside(wrapped)
        return kind(wrapped, handler.request_deserializer, handler.response_serializer)

    def _enter(self, details: Any) -> tuple[Claims, VestaError | None]:
        """Who calls, and why the call is refused, if it is: by its token, or because the server is busy."""
        claims = NOBODY
        try:
            claims = self._identify(details.method, trace.metadata_of(details.invocation_metadata))
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
        """The same behavior for requests that keep their rules, which measures how long it waited for a thread, and is not begun once
        its deadline has passed."""
        arrival = time.perf_counter()

        def run(request: Any, context: grpc.ServicerContext) -> Any:
            self._admission_metrics.observe(self._admission.queue, time.perf_counter() - arrival)
            remaining = context.time_remaining()
            if not context.is_active() or (remaining is not None and remaining <= 0):
                self._admission_metrics.count(self._admission.queue, "expired")
                raise deadline_passed()
            return behavior(_checked(request, claims), context)

        return run

    def _aside(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        """The same behavior, run by the side pool."""

        def run(request: Any, context: grpc.ServicerContext) -> Any:
            return behavior(request, context)

        run.experimental_thread_pool = self._side_pool  # type: ignore[attr-defined] # gRPC looks for this attribute
        return run

    def _watch_aside(self, behavior: Callable[..., Any]) -> Callable[..., Any]:
        """Likewise for the servicer's Watch, which answers by a callback and so holds no thread: a peer waits for its first answer."""

        def run(request: Any, context: grpc.ServicerContext, send_response_callback: Callable[[Any], None]) -> None:
            behavior(request, context, send_response_callback)

        run.experimental_thread_pool = self._side_pool  # type: ignore[attr-defined] # as above
        run.experimental_non_blocking = True  # type: ignore[attr-defined] # as above
        return run

    def _unary(self, method: str, claims: Claims, behavior: Callable[..., Any]) -> Callable[..., Any]:
        def run(request: Any, context: grpc.ServicerContext) -> Any:
            call = _Call(method, context, self._metrics)
            metadata = trace.metadata_of(context.invocation_metadata())
            with (
                trace.span(method, metadata, SpanKind.SERVER),
                _calling(claims),
            ):
                try:
                    answer = behavior(request, context)
                except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status
                    call.fail(error)
                    return None  # only where nobody waits any more
                call.succeed()
                return answer

        return run

    def _streaming(self, method: str, claims: Claims, behavior: Callable[..., Any]) -> Callable[..., Any]:
        def run(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            call = _Call(method, context, self._metrics)
            metadata = trace.metadata_of(context.invocation_metadata())
            with (
                trace.span(method, metadata, SpanKind.SERVER),
                _calling(claims),
            ):
                try:
                    yield from behavior(request, context)
                except GeneratorExit:  # nobody reads on
                    call.cancel()
                    raise
                except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status
                    call.fail(error)
                    return
                call.succeed()

        return run


def _raising(error: VestaError) -> Callable[..., Any]:
    """A behavior that refuses."""

    def refuse(request: Any, context: grpc.ServicerContext) -> Any:  # noqa: ARG001 - a handler's signature
        raise error

    return refuse


def _calling(claims: Claims) -> AbstractContextManager[None]:
    """On behalf of whom the token says. The gateway passes on what comes from outside, and so counts as no service of ours."""
    return trace.calling(claims.caller, claims.role, "" if claims.service == OUTER_SERVICE else claims.service)


def _checked(request: Any, claims: Claims) -> Any:
    """A request that keeps its rules. Of a stream the first message must: it carries everything but the later bytes."""
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
    """One RPC on its way to its log line and its measurement."""

    def __init__(self, method: str, context: grpc.ServicerContext, metrics: RpcMetrics) -> None:
        self._method = method
        self._context = context
        self._metrics = metrics
        self._start = time.perf_counter()

    def succeed(self) -> None:
        """The handler answered."""
        self._end("OK")
        log.debug("rpc", method=self._method, seconds=round(time.perf_counter() - self._start, 4))

    def cancel(self) -> None:
        """The caller went away."""
        self._end("CANCELLED")

    def fail(self, error: Exception) -> None:
        """Ends the RPC with the status that the error stands for: gRPC's own exception leaves the handler."""
        if not self._context.is_active() and not isinstance(error, VestaError):
            self.cancel()
            return
        if isinstance(error, NotImplementedError):
            self._end(grpc.StatusCode.UNIMPLEMENTED.name)
            self._context.abort(grpc.StatusCode.UNIMPLEMENTED, f"{self._method} is not implemented here")
        found = _as_vesta_error(error)
        self._end(found.code.name)
        if isinstance(found, Internal):
            log.exception("rpc_failed", method=self._method, exc_info=error)
        else:
            log.info(
                "rpc_refused", method=self._method, code=found.code.name, reason=found.reason, message=found.message
            )
        self._context.abort_with_status(rpc_status.to_status(to_status(found)))

    def _end(self, code: str) -> None:
        trace.end_call(code)
        self._metrics.observe(self._method, code, time.perf_counter() - self._start)


def _as_vesta_error(error: Exception) -> VestaError:
    """Our own errors as they are; what a database that is away raises as UNAVAILABLE; the rest as INTERNAL, without its words."""
    if isinstance(error, VestaError):
        return error
    if getattr(error, "sqlstate", None) == DISK_FULL:
        return storage_full(None)
    if is_transient(error):
        return Unavailable("a part of the platform does not answer just now; try again", reason="ENGINE_UNAVAILABLE")
    return Internal(
        f"the service made a mistake; its log has the details under trace {trace.trace_id()}", reason="INTERNAL"
    )
