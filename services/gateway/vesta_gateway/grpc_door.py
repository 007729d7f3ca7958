"""The gRPC door: every RPC of the contracts, passed through as bytes after the same checks as over REST."""

import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, NoReturn

import grpc
from google.rpc import code_pb2
from vesta_common import trace
from vesta_common.errors import InvalidArgument

from vesta_gateway.calls import Calls, read_message
from vesta_gateway.contracts import Rpc
from vesta_gateway.journal import Entry, Journal
from vesta_gateway.problems import DETAILS_KEY, status_of

Context = grpc.aio.ServicerContext[bytes, bytes]
_CODES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcDoor(grpc.GenericRpcHandler):
    """Answers the RPCs of the contracts; others are UNIMPLEMENTED."""

    def __init__(self, rpcs: Sequence[Rpc], calls: Calls, journal: Journal) -> None:
        self._rpcs = {rpc.path: rpc for rpc in rpcs}
        self._calls = calls
        self._journal = journal
        self._handlers: dict[str, Any] = {}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a method; None where there is no such method. Without serialisers, it sees bytes."""
        path = handler_call_details.method
        rpc = self._rpcs.get(path)
        if rpc is None:
            return None
        handler = self._handlers.get(path)
        if handler is None:
            if rpc.is_unary:
                handler = grpc.unary_unary_rpc_method_handler(partial(self._unary, rpc))
            else:  # on the wire a single message is a stream of one
                handler = grpc.stream_stream_rpc_method_handler(partial(self._stream, rpc))
            self._handlers[path] = handler
        return handler

    async def _unary(self, rpc: Rpc, raw: bytes, context: Context) -> bytes:
        start = time.perf_counter()
        headers = _headers_of(context)
        with trace.span(rpc.path, headers):
            entry = self._journal.begin("grpc", rpc.path, _address_of(context), start)
            try:
                session = await self._calls.enter(headers, entry.address)
                entry.caller = session.caller.member
                with self._calls.hold(session, rpc):
                    request = read_message(rpc, raw)
                    answer = await self._calls.unary(session, rpc, request, context.time_remaining())
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status
                await self._refuse(error, context, entry)
            except BaseException:
                entry.end("CANCELLED")
                raise
            entry.end("OK")
            return answer

    async def _stream(self, rpc: Rpc, requests: AsyncIterator[bytes], context: Context) -> None:
        start = time.perf_counter()
        headers = _headers_of(context)
        with trace.span(rpc.path, headers):
            entry = self._journal.begin("grpc", rpc.path, _address_of(context), start)
            try:
                session = await self._calls.enter(headers, entry.address)
                entry.caller = session.caller.member
                with self._calls.hold(session, rpc):
                    first = read_message(rpc, await _first(requests))
                    async with self._calls.stream(session, rpc, first, requests, context.time_remaining()) as answers:
                        async for answer in answers:
                            await context.write(answer)
            except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets a status
                await self._refuse(error, context, entry)
            except BaseException:
                entry.end("CANCELLED")
                raise
            entry.end("OK")

    async def _refuse(self, error: Exception, context: Context, entry: Entry) -> NoReturn:
        """Ends the call with the status that an error stands for."""
        status = status_of(error)
        entry.end(code_pb2.Code.Name(status.code), error)
        await context.abort(_CODES[status.code], status.message, ((DETAILS_KEY, status.SerializeToString()),))


async def _first(requests: AsyncIterator[bytes]) -> bytes:
    async for raw in requests:
        return raw
    raise InvalidArgument("the call sent no request", reason="REQUEST_MISSING")


def _address_of(context: Context) -> str:
    """Where a call comes from, without the port: `ipv4:10.0.0.7:4711` is `10.0.0.7`."""
    return context.peer().partition(":")[2].rpartition(":")[0].strip("[]")


def _headers_of(context: Context) -> dict[str, str]:
    return trace.metadata_of([(key, value) for key, value in context.invocation_metadata() or ()])
