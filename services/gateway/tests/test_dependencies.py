"""The report on the dependencies: how often services are asked for their problems."""

import asyncio
from datetime import timedelta
from typing import Any

from vesta_common.clock import ManualClock
from vesta_common.runtime.engine_watch import EngineWatch
from vesta_gateway.calls.dependencies import ASK_INTERVAL, FRESH, Dependencies


class Postgres:
    """Responds."""

    def ping(self) -> None:
        return None


class Remote:
    """A service that counts how often it is asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.found: list[str] = []
        self.connected = True

    async def problems(self) -> list[str]:
        self.asked += 1
        return self.found

    def is_connected(self) -> bool:
        return self.connected


def reports(dependencies: Dependencies, clock: ManualClock, duration: timedelta) -> list[str]:
    """Returns the problems after asking for a report every second."""
    problems: list[str] = []
    for _ in range(duration // FRESH):
        problems = asyncio.run(dependencies.problems())
        clock.advance(FRESH)
    return problems


def test_services_are_asked_seldom_while_none_has_a_problem_and_each_second_while_one_has() -> None:
    clock, remote = ManualClock(), Remote()
    parts: Any = (Postgres(), None, {"datasets": remote}, EngineWatch({}))
    dependencies = Dependencies(*parts, monotonic=lambda: clock.now().timestamp())

    assert reports(dependencies, clock, 4 * ASK_INTERVAL) == []
    assert remote.asked == 4
    remote.found = ["Kafka does not respond"]
    assert reports(dependencies, clock, ASK_INTERVAL) == ["datasets: Kafka does not respond"]
    remote.asked = 0
    reports(dependencies, clock, ASK_INTERVAL)
    assert remote.asked == ASK_INTERVAL // FRESH
    remote.found = []
    assert reports(dependencies, clock, FRESH) == []


def test_a_service_that_is_not_connected_is_asked_each_second() -> None:
    clock, remote = ManualClock(), Remote()
    parts: Any = (Postgres(), None, {"datasets": remote}, EngineWatch({}))
    dependencies = Dependencies(*parts, monotonic=lambda: clock.now().timestamp())
    reports(dependencies, clock, ASK_INTERVAL)
    remote.connected = False
    remote.asked = 0
    reports(dependencies, clock, ASK_INTERVAL)
    assert remote.asked == ASK_INTERVAL // FRESH
