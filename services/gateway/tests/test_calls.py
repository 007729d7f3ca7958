"""The way of a call: what a flood of bad keys costs."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from vesta_common.clock import ManualClock
from vesta_common.errors import ResourceExhausted, Unauthenticated
from vesta_gateway.access.authentication import Authenticator
from vesta_gateway.access.limits import Slots, TokenBuckets
from vesta_gateway.access.throttle import Throttle
from vesta_gateway.audit.audit_log import AuditLog
from vesta_gateway.audit.audit_writer import AuditWriter
from vesta_gateway.audit.entries import Origin
from vesta_gateway.calls.pipeline import CallPipeline, Limits
from vesta_gateway.contracts.methods import get_rpc
from vesta_gateway.store.audit_entries import AuditRow


def test_above_the_limit_of_rejections_invalid_keys_are_not_looked_up():
    asked: list[bytes] = []
    slots = Slots("calls", 1, 1)
    limits = Limits(
        requests=TokenBuckets("requests", 1, 1, lambda: 0.0),
        unauthenticated=TokenBuckets("unauthenticated requests", 1, 3, lambda: 0.0),
        calls=slots,
        transfers=slots,
        watchers=slots,
        throttle=Throttle(lambda: 0.0, lambda: 0.0),
        timeout=timedelta(seconds=1),
        recheck=timedelta(seconds=1),
    )
    authenticator = Authenticator(asked.append, bytes(32), timedelta(seconds=5), ManualClock(), time.monotonic)
    projects: Any = None
    written: list[AuditRow] = []
    writer = AuditWriter(written.extend, CollectorRegistry())
    calls = CallPipeline({}, authenticator, projects, limits, AuditLog(writer, ManualClock()))
    rpc = get_rpc("vesta.datasets.v1.DatasetService.GetDataset")

    async def guess(number: int) -> None:
        await calls.enter(rpc, {"x-api-key": f"vesta_{number}"}, Origin("10.0.0.1", "rest"))

    async def story():
        for number in range(3):
            with pytest.raises(Unauthenticated):
                await guess(number)
        with pytest.raises(ResourceExhausted):
            await guess(3)
        await writer.close()

    asyncio.run(story())
    assert len(asked) == 3
    assert [(row.code, row.reason, row.address) for row in written] == 3 * [
        ("UNAUTHENTICATED", "KEY_UNKNOWN", "10.0.0.1")
    ]
