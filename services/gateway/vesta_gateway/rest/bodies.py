"""The bodies of HTTP requests: read whole within limits, or passed on piece by piece."""

from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from vesta_common.byte_budget import ByteBudget
from vesta_common.errors import InvalidArgument

from vesta_gateway.rest.idle_timeouts import until_sent

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

CHUNK_BYTES = 256 * 1024


@dataclass(frozen=True)
class BodyLimits:
    """What bodies may be, over either door.

    Attributes:
        whole_bytes_max: of a body that is read whole.
        upload_bytes_max: of one that is passed on.
        idle: how long a sender, or a reader of a stream, may pause.
        budget: holds what is in memory.
    """

    whole_bytes_max: int
    upload_bytes_max: int
    idle: timedelta
    budget: ByteBudget


class Disconnected(Exception):
    """Nobody is listening any more."""


class Body:
    """The body of one request.

    Args:
        length: what Content-Length says; None without one.
        idle: how long the sender may pause.
    """

    def __init__(self, receive: Receive, length: int | None, idle: timedelta) -> None:
        self._receive = receive
        self._length = length
        self._idle = idle
        self._ended = False

    @asynccontextmanager
    async def whole(self, bytes_max: int, budget: ByteBudget) -> AsyncIterator[bytes]:
        """All of it, kept within the budget while the block lasts.

        Raises:
            InvalidArgument: it is too large.
            ResourceExhausted: too many bytes are on their way at once.
            DeadlineExceeded: the sender paused for too long.
        """
        check_size(self._length or 0, bytes_max)
        held = 0
        try:
            parts = []
            async for part in self._parts():
                budget.take(len(part))
                held += len(part)
                check_size(held, bytes_max)
                parts.append(part)
            yield parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            budget.give_back(held)

    async def chunks(self, bytes_max: int) -> AsyncIterator[bytes]:
        """Its bytes as they come, gathered to pieces of about 256 KiB.

        Raises:
            InvalidArgument: it is too large.
            DeadlineExceeded: the sender paused for too long.
        """
        check_size(self._length or 0, bytes_max)
        total, gathered = 0, bytearray()
        async for part in self._parts():
            total += len(part)
            check_size(total, bytes_max)
            gathered += part
            if len(gathered) >= CHUNK_BYTES:
                yield bytes(gathered)
                gathered.clear()
        if gathered:
            yield bytes(gathered)

    async def _parts(self) -> AsyncIterator[bytes]:
        while not self._ended:
            async with until_sent(self._idle):
                message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            self._ended = not message.get("more_body", False)
            if message.get("body"):
                yield message["body"]

    async def disconnected(self) -> None:
        """Returns when nobody listens any more. To be awaited after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def check_size(size_bytes: int, bytes_max: int) -> None:
    """Lets a body of this size pass.

    Raises:
        InvalidArgument: it is too large.
    """
    if size_bytes > bytes_max:
        raise InvalidArgument(
            f"the body has more than {bytes_max} bytes; send less at a time",
            reason="BODY_TOO_LARGE",
            metadata={"bytes_max": str(bytes_max)},
        )
