"""The gRPC API: forwards every RPC of the contracts as bytes, after the same checks as the REST API.

On the wire, a single message is a stream of one message, so every RPC is handled as a stream. No request is read before the caller is
authenticated, and not more of it than needed.
"""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from typing import Any, NoReturn

import grpc
from google.rpc import code_pb2
from opentelemetry.trace import SpanKind
from vesta_common import trace
from vesta_common.errors import InvalidArgument

from vesta_gateway.audit.entries import Origin
from vesta_gateway.calls.access_log import AccessLog, Entry
from vesta_gateway.calls.pipeline import CallPipeline, Session, read_message
from vesta_gateway.contracts.methods import Rpc
from vesta_gateway.problems import DETAILS_KEY, status_of
from vesta_gateway.rest.bodies import BodyLimits, check_size
from vesta_gateway.rest.client_address import Proxies
from vesta_gateway.rest.idle_timeouts import request_idle_timeout, response_idle_timeout

FORWARDED = "x-forwarded-for"
Context = grpc.aio.ServicerContext[bytes, bytes]
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcApi(grpc.GenericRpcHandler):
    """Handles the RPCs of the contracts. Other methods are UNIMPLEMENTED."""

    def __init__(
        self, rpcs: Sequence[Rpc], calls: CallPipeline, access_log: AccessLog, limits: BodyLimits, proxies: Proxies
    ) -> None:
        self._rpcs = {rpc.path: rpc for rpc in rpcs}
        self._calls = calls
        self._access_log = access_log
        self._limits = limits
        self._proxies = proxies
        self._handlers: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Returns the handler of a method; None if there is no such method. Without serializers, handlers receive bytes."""
        path = handler_call_details.method
        rpc = self._rpcs.get(path)
        if rpc is None:
            return None
        handler = self._handlers.get(path)
        if handler is None:
            if rpc.is_unary:
                handler = grpc.stream_unary_rpc_method_handler(partial(self._unary, rpc))
            else:
                handler = grpc.stream_stream_rpc_method_handler(partial(self._stream, rpc))
            self._handlers[path] = handler
        return handler

    async def _unary(self, rpc: Rpc, requests: AsyncIterator[bytes], context: Context) -> bytes:
        async with self._call(rpc, requests, context) as (session, raw):
            return await self._calls.unary(session, rpc, read_message(rpc, raw), context.time_remaining())

    async def _stream(self, rpc: Rpc, requests: AsyncIterator[bytes], context: Context) -> None:
        async with self._call(rpc, requests, context) as (session, raw):
            first, later = read_message(rpc, raw), self._later(rpc, requests, len(raw))
            async with self._calls.stream(session, rpc, first, later, context.time_remaining()) as responses:
                async for response in responses:
                    async with response_idle_timeout(self._limits.idle):
                        await context.write(response)

    @asynccontextmanager
    async def _call(
        self, rpc: Rpc, requests: AsyncIterator[bytes], context: Context
    ) -> AsyncIterator[tuple[Session, bytes]]:
        """Authenticates a call and reads its first request, which counts in the memory budget for the duration of the block.

        Ends the call with the status of an error of the block, and logs how it ended.
        """
        start = time.perf_counter()
        headers = _headers_of(context)
        with trace.span(rpc.path, headers, SpanKind.SERVER), ExitStack() as stack:
            entry = self._access_log.begin("grpc", rpc.path, self._address_of(context), start)
            try:
                session = await self._calls.enter(rpc, headers, Origin(entry.address, "grpc"))
                entry.caller = session.caller.member
                stack.enter_context(self._calls.hold(session, rpc))
                raw = await self._first(requests)
                stack.enter_context(self._in_memory(raw))
                yield session, raw
            except Exception as error:  # noqa: BLE001 - every error becomes a status for the client
                await self._abort(error, context, entry)
            except BaseException:
                entry.end("CANCELLED")
                raise
            entry.end("OK")

    async def _abort(self, error: Exception, context: Context, entry: Entry) -> NoReturn:
        """Ends the call with the status of an error.

        A client that does not read receives the status only when it reads again. Until then the call keeps its slot, because it still uses
        memory of this process.
        """
        status = status_of(error)
        entry.end(code_pb2.Code.Name(status.code), error)
        details = ((DETAILS_KEY, status.SerializeToString()),)
        await context.abort(_CODES[status.code], status.message, details)

    def _address_of(self, context: Context) -> str:
        """Returns the client's address without port: `10.0.0.7` for `ipv4:10.0.0.7:4711`; behind a trusted proxy, the forwarded address."""
        peer = context.peer().partition(":")[2].rpartition(":")[0].strip("[]")
        metadata = context.invocation_metadata() or ()
        return self._proxies.client_of(peer, [str(value) for key, value in metadata if key == FORWARDED])

    async def _first(self, requests: AsyncIterator[bytes]) -> bytes:
        raw = await self._next(requests)
        if raw is None:
            raise InvalidArgument("the call has no request message; send one", reason="REQUEST_MISSING")
        return raw

    async def _later(self, rpc: Rpc, requests: AsyncIterator[bytes], total_bytes: int) -> AsyncIterator[bytes]:
        """Yields the requests after the first; none if the RPC has a single request."""
        if not rpc.descriptor.client_streaming:
            return
        while (raw := await self._next(requests)) is not None:
            total_bytes += len(raw)
            check_size(total_bytes, self._limits.upload_bytes_max)
            with self._in_memory(raw):
                yield raw

    async def _next(self, requests: AsyncIterator[bytes]) -> bytes | None:
        async with request_idle_timeout(self._limits.idle):
            return await anext(requests, None)

    @contextmanager
    def _in_memory(self, raw: bytes) -> Iterator[None]:
        """Counts a request in the memory budget for the duration of the block."""
        self._limits.budget.acquire(len(raw))
        try:
            yield
        finally:
            self._limits.budget.release(len(raw))


def _headers_of(context: Context) -> dict[str, str]:
    return trace.metadata_of([(key, value) for key, value in context.invocation_metadata() or ()])
