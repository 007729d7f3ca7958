"""Idle timeouts of streaming requests and responses."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from vesta_common.errors import DeadlineExceeded


@asynccontextmanager
async def request_idle_timeout(idle: timedelta) -> AsyncIterator[None]:
    """Limits the wait for the next part of a request.

    Raises:
        DeadlineExceeded: BODY_IDLE, nothing arrived within the timeout.
    """
    try:
        async with asyncio.timeout(idle.total_seconds()):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"idle timeout: no byte of the body was received for {idle.total_seconds():g} s; send the request again",
            reason="BODY_IDLE",
        ) from error


@asynccontextmanager
async def response_idle_timeout(idle: timedelta) -> AsyncIterator[None]:
    """Limits the wait for the client to read the next part of a response.

    Raises:
        DeadlineExceeded: READER_IDLE, the client read nothing within the timeout.
    """
    try:
        async with asyncio.timeout(idle.total_seconds()):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"idle timeout: no byte of the response was read for {idle.total_seconds():g} s; call "
            "again and keep reading",
            reason="READER_IDLE",
        ) from error
