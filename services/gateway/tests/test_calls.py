"""The way of a call: what a flood of bad keys costs."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from vesta_common.clock import ManualClock
from vesta_common.errors import ResourceExhausted, Unauthenticated
from vesta_gateway.authentication import Authenticator
from vesta_gateway.calls import Calls, Limits
from vesta_gateway.limits import Slots, TokenBuckets
from vesta_gateway.throttle import Throttle


def test_past_the_limit_on_refusals_a_bad_key_is_not_even_looked_up():
    asked: list[bytes] = []
    slots = Slots("calls", 1, 1)
    limits = Limits(
        requests=TokenBuckets("requests", 1, 1, lambda: 0.0),
        refusals=TokenBuckets("requests without a good key", 1, 3, lambda: 0.0),
        calls=slots,
        transfers=slots,
        watchers=slots,
        throttle=Throttle(lambda: 0.0, lambda: 0.0),
        timeout=timedelta(seconds=1),
        recheck=timedelta(seconds=1),
    )
    authenticator = Authenticator(asked.append, bytes(32), timedelta(seconds=5), ManualClock(), time.monotonic)
    projects: Any = None
    calls = Calls({}, authenticator, projects, limits)

    async def guess(number: int) -> None:
        await calls.enter({"x-api-key": f"vesta_{number}"}, "10.0.0.1")

    async def story():
        for number in range(3):
            with pytest.raises(Unauthenticated):
                await guess(number)
        with pytest.raises(ResourceExhausted):
            await guess(3)

    asyncio.run(story())
    assert len(asked) == 3
