"""How long the other side of a stream may keep us waiting: for what it sends, and for room for what it is sent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from vesta_common.errors import DeadlineExceeded


@asynccontextmanager
async def until_sent(idle: timedelta) -> AsyncIterator[None]:
    """Waits in the block for something to come.

    Raises:
        DeadlineExceeded: nothing did.
    """
    try:
        async with asyncio.timeout(idle.total_seconds()):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"no byte of the body came for {idle.total_seconds():g} s; send it again", reason="BODY_IDLE"
        ) from error


@asynccontextmanager
async def until_taken(idle: timedelta) -> AsyncIterator[None]:
    """Waits in the block for something to be taken.

    Raises:
        DeadlineExceeded: it was not.
    """
    try:
        async with asyncio.timeout(idle.total_seconds()):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(
            f"nothing of the answer was read for {idle.total_seconds():g} s; call again, and read on",
            reason="READER_IDLE",
        ) from error
