"""Bodies of HTTP requests: read completely within limits, or streamed."""

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from vesta_common.byte_budget import ByteBudget
from vesta_common.errors import InvalidArgument

from vesta_gateway.rest.idle_timeouts import request_idle_timeout

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class BodyLimits:
    """Limits of request bodies, for REST and gRPC.

    Attributes:
        whole_bytes_max: maximum size of a body that is read completely.
        upload_bytes_max: maximum size of a streamed body.
        idle: idle timeout of streaming requests and responses.
        budget: limits the bytes in memory.
    """

    whole_bytes_max: int
    upload_bytes_max: int
    idle: timedelta
    budget: ByteBudget


class Disconnected(Exception):
    """The client has disconnected."""


class Body:
    """The body of a request.

    Args:
        length: the Content-Length; None without one.
        idle: the idle timeout.
    """

    def __init__(self, receive: Receive, length: int | None, idle: timedelta) -> None:
        self._receive = receive
        self._length = length
        self._idle = idle
        self._ended = False

    @asynccontextmanager
    async def whole(self, bytes_max: int, budget: ByteBudget) -> AsyncIterator[bytes]:
        """Reads the complete body. It counts in the budget for the duration of the block.

        Raises:
            InvalidArgument: BODY_TOO_LARGE.
            ResourceExhausted: MEMORY_LIMITED, the budget is exhausted.
            DeadlineExceeded: BODY_IDLE, the idle timeout has passed.
        """
        check_size(self._length or 0, bytes_max)
        buffered_bytes = 0
        try:
            parts = []
            async for part in self._parts():
                budget.acquire(len(part))
                buffered_bytes += len(part)
                check_size(buffered_bytes, bytes_max)
                parts.append(part)
            yield parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            budget.release(buffered_bytes)

    async def chunks(self, bytes_max: int) -> AsyncIterator[bytes]:
        """Yields the body as it arrives, in chunks of about 256 KiB.

        Raises:
            InvalidArgument: BODY_TOO_LARGE.
            DeadlineExceeded: BODY_IDLE, the idle timeout has passed.
        """
        check_size(self._length or 0, bytes_max)
        total, gathered_bytes, gathered = 0, 0, list[bytes]()
        async for part in self._parts():
            total += len(part)
            check_size(total, bytes_max)
            gathered.append(part)
            gathered_bytes += len(part)
            if gathered_bytes >= CHUNK_BYTES:
                yield b"".join(gathered)
                gathered_bytes, gathered = 0, []
        if gathered:
            yield b"".join(gathered)

    async def _parts(self) -> AsyncIterator[bytes]:
        while not self._ended:
            async with request_idle_timeout(self._idle):
                message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            self._ended = not message.get("more_body", False)
            if message.get("body"):
                yield message["body"]

    async def disconnected(self) -> None:
        """Returns when the client disconnects. Await it after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def check_size(size_bytes: int, bytes_max: int) -> None:
    """Checks the size of a body.

    Raises:
        InvalidArgument: BODY_TOO_LARGE.
    """
    if size_bytes > bytes_max:
        raise InvalidArgument(
            f"the body has more than {bytes_max} bytes; send a smaller request",
            reason="BODY_TOO_LARGE",
            metadata={"bytes_max": str(bytes_max)},
        )
