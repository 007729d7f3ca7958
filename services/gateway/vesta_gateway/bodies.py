"""The bodies of HTTP requests: read whole within limits, or passed on piece by piece."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from vesta_common.errors import DeadlineExceeded, InvalidArgument

from vesta_gateway.limits import ByteBudget

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

CHUNK_BYTES = 256 * 1024


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
        self._idle_seconds = idle.total_seconds()
        self._ended = False

    @asynccontextmanager
    async def whole(self, bytes_max: int, budget: ByteBudget) -> AsyncIterator[bytes]:
        """All of it, kept within the budget while the block lasts.

        Raises:
            InvalidArgument: it is too large.
            ResourceExhausted: too many bytes are on their way at once.
            DeadlineExceeded: the sender paused for too long.
        """
        self._check(self._length or 0, bytes_max)
        held = 0
        try:
            parts = []
            async for part in self._parts():
                budget.take(len(part))
                held += len(part)
                self._check(held, bytes_max)
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
        self._check(self._length or 0, bytes_max)
        total, gathered = 0, bytearray()
        async for part in self._parts():
            total += len(part)
            self._check(total, bytes_max)
            gathered += part
            if len(gathered) >= CHUNK_BYTES:
                yield bytes(gathered)
                gathered.clear()
        if gathered:
            yield bytes(gathered)

    async def _parts(self) -> AsyncIterator[bytes]:
        while not self._ended:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    message = await self._receive()
            except TimeoutError as error:
                raise DeadlineExceeded(
                    f"no byte of the body came for {self._idle_seconds:g} s; send it again", reason="BODY_IDLE"
                ) from error
            if message["type"] == "http.disconnect":
                raise Disconnected
            self._ended = not message.get("more_body", False)
            if message.get("body"):
                yield message["body"]

    async def disconnected(self) -> None:
        """Returns when nobody listens any more. To be awaited after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    @staticmethod
    def _check(size: int, bytes_max: int) -> None:
        if size > bytes_max:
            raise InvalidArgument(
                f"the body has more than {bytes_max} bytes; send less at a time",
                reason="BODY_TOO_LARGE",
                metadata={"bytes_max": str(bytes_max)},
            )
