"""Serves the gateway's own RPCs in-process, behind the same checks as the RPCs of the backend services."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from google.protobuf.message import DecodeError, Message
from vesta_common import trace
from vesta_common.errors import InvalidArgument, Unavailable
from vesta_common.rpc.validation import validate

from vesta_gateway.calls.backends import CALLER_KEY, ROLE_KEY, Metadata, ResponseStream
from vesta_gateway.contracts.methods import Rpc


class LocalBackend:
    """A backend of servicers in this process.

    Args:
        servicers: have one method per RPC. Plain functions run in a thread; async generators stream responses.
    """

    def __init__(self, servicers: Sequence[Any]) -> None:
        self._servicers = servicers

    async def unary(self, rpc: Rpc, request: bytes, metadata: Metadata, timeout_seconds: float) -> bytes:  # noqa: ARG002
        """Makes a unary call. Returns the serialized response."""
        message = _read(rpc, request)
        response: Message = await asyncio.wait_for(asyncio.to_thread(self._method(rpc), message, None), timeout_seconds)
        return response.SerializeToString()

    def stream(
        self,
        rpc: Rpc,
        requests: AsyncIterator[bytes],
        metadata: Metadata,
        timeout_seconds: float | None,  # noqa: ARG002
    ) -> ResponseStream:
        """Starts a call with a response stream, which lasts until the client ends it."""
        return _LocalResponseStream(self._method(rpc), rpc, requests, trace.metadata_of(metadata))

    def _method(self, rpc: Rpc) -> Any:
        for servicer in self._servicers:
            if rpc.descriptor.containing_service.name == type(servicer).__name__.removesuffix("Api") + "Service":
                return getattr(servicer, rpc.descriptor.name)
        raise Unavailable(f"{rpc.full_name} is not implemented by the gateway", reason="BACKEND_UNAVAILABLE")


class _LocalResponseStream:
    def __init__(self, method: Any, rpc: Rpc, requests: AsyncIterator[bytes], metadata: Mapping[str, str]) -> None:
        self._method = method
        self._metadata = metadata
        self._rpc = rpc
        self._requests = requests

    async def __aiter__(self) -> AsyncIterator[bytes]:
        request = _read(self._rpc, await anext(self._requests))
        with trace.calling(self._metadata.get(CALLER_KEY, ""), self._metadata.get(ROLE_KEY, "")):
            result = self._method(request, None)
        async with aclosing(result) as responses:
            async for response in responses:
                yield response.SerializeToString()

    async def headers(self) -> Mapping[str, str]:
        return {}

    def cancel(self) -> None:
        """Does nothing: closing the iterator ends the call."""


def _read(rpc: Rpc, request: bytes) -> Message:
    try:
        message = rpc.request_type.FromString(request)
    except DecodeError as error:
        raise InvalidArgument(
            f"the request is not a valid {rpc.descriptor.input_type.full_name}", reason="BODY_MALFORMED"
        ) from error
    validate(message)
    return message
