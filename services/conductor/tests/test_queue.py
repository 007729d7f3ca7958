"""The work queue: which Loop is reconciled next, by which worker, and what schedules it."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from conductor_builders import DATASET, PROJECT
from conductor_simulation import SimulatedPlatform
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry
from vesta_common.backoff import exponential_backoff
from vesta_common.clock import ManualClock
from vesta_common.events.cloudevents import new_event, type_of
from vesta_common.leases import Lease, LeaseLost
from vesta_common.storage.postgres import Postgres
from vesta_conductor import store
from vesta_conductor.execution.driver import BACKOFF_FIRST, BACKOFF_MAX, Driver
from vesta_conductor.execution.event_handlers import EventHandlers
from vesta_conductor.execution.queue import Worker
from vesta_conductor.metrics import ConductorMetrics
from vesta_conductor.store.loop_queue import LEASE_DURATION, claim_loop
from vesta_conductor.store.statements import queries
from vesta_contracts.annotation.v1 import TaskAccepted, TaskCancelled, TaskRejected
from vesta_contracts.conductor.v1 import Loop, LoopPolicy, LoopStatus, Project
from vesta_contracts.datasets.v1 import DatasetScored, ItemAnnotated, ItemCreated
from vesta_contracts.serving.v1 import DeploymentFailed, DeploymentPromoted, DeploymentRolledBack, DeploymentScored
from vesta_contracts.training.v1 import (
    TrainingRunCancelled,
    TrainingRunFailed,
    TrainingRunMeasured,
    TrainingRunSucceeded,
)

REST = timedelta(seconds=5)


@dataclass
class Recorder:
    """A fake driver, which records the Loops that it is called with."""

    answer: timedelta | None = REST
    turned: list[tuple[str, int]] = field(default_factory=list)
    meanwhile: Callable[[], None] = lambda: None

    def turn(self, loop: str, failures: int, lease: Lease) -> timedelta | None:
        self.turned.append((loop, failures))
        self.meanwhile()
        return self.answer


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def postgres(postgres_url: str, postgres_schema: str, clock: ManualClock) -> Iterator[Postgres]:
    database = Postgres(postgres_url, postgres_schema).open()
    database.migrate("vesta_conductor")
    with database.transaction() as connection:
        store.insert_project(connection, Project(name=PROJECT), clock.now())
        for loop_id in ("a", "b"):
            wanted = Loop(
                name=f"{PROJECT}/loops/{loop_id}",
                policy=LoopPolicy(dataset=f"{DATASET}-{loop_id}"),
                status=LoopStatus(),
            )
            store.insert_loop(connection, wanted, PROJECT, clock.now())
    yield database
    database.close()


@pytest.fixture
def worker(postgres: Postgres, clock: ManualClock) -> Callable[..., Worker]:
    """Creates workers."""

    def make(driver: Any, heartbeat_interval: timedelta | None = None) -> Worker:
        return Worker(postgres, driver, clock, ConductorMetrics(CollectorRegistry()), heartbeat_interval)

    return make


def latest_lease(postgres: Postgres) -> datetime:
    with postgres.transaction() as connection:
        row = connection.execute("SELECT max(lease_expire_time) AS latest FROM loop_queue").fetchone()
    assert row is not None
    return row["latest"]


A, B = f"{PROJECT}/loops/a", f"{PROJECT}/loops/b"


def backoff_after(failures: int) -> timedelta:
    return exponential_backoff(failures, BACKOFF_FIRST, BACKOFF_MAX)


def drain(worker: Worker) -> None:
    while worker.step():
        pass


def test_every_due_loop_is_reconciled_once_and_then_waits(worker: Callable[[Any], Worker], clock: ManualClock) -> None:
    driver = Recorder()
    drain(worker(driver))
    assert sorted(driver.turned) == [(A, 0), (B, 0)]
    clock.advance(REST)
    drain(worker(driver))
    assert len(driver.turned) == 4


def test_repeated_failures_increase_the_backoff(worker: Callable[[Any], Worker], clock: ManualClock) -> None:
    driver = Recorder(answer=None)
    one = worker(driver)
    drain(one)
    for failures in range(3):
        clock.advance(backoff_after(failures + 1) - timedelta(milliseconds=1))
        assert not one.step()
        clock.advance(timedelta(milliseconds=1))
        drain(one)
    assert sorted(driver.turned)[:4] == [(A, 0), (A, 1), (A, 2), (A, 3)]
    assert [backoff_after(n + 1).total_seconds() for n in (0, 1, 5, 6, 100)] == [1, 2, 32, 60, 60]


def test_a_loop_claimed_by_another_worker_is_skipped(
    worker: Callable[..., Worker], clock: ManualClock, postgres: Postgres
) -> None:
    second = Recorder()

    def claim_meanwhile() -> None:
        clock.advance(LEASE_DURATION)  # the first worker is slow, so that its Loop is due again
        deadline = time.monotonic() + 10
        while latest_lease(postgres) < clock.now() + LEASE_DURATION:  # its heartbeat has not renewed the lease yet
            assert time.monotonic() < deadline
        drain(worker(second))

    first = Recorder(meanwhile=claim_meanwhile)
    worker(first, timedelta(milliseconds=2)).step()
    assert first.turned[0] not in second.turned
    assert len(second.turned) == 1


def test_a_loop_of_a_killed_worker_is_reconciled_by_another(
    worker: Callable[[Any], Worker], clock: ManualClock, postgres: Postgres
) -> None:
    class Dies(BaseException):
        pass

    def die() -> None:
        raise Dies

    dying = worker(Recorder(meanwhile=die))
    with pytest.raises(Dies):
        dying.step()
    other = Recorder()
    drain(worker(other))
    assert len(other.turned) == 1
    clock.advance(LEASE_DURATION)
    drain(worker(other))
    assert {loop for loop, _ in other.turned} == {A, B}


def test_many_workers_reconcile_each_loop_one_at_a_time(worker: Callable[[Any], Worker], clock: ManualClock) -> None:
    holding: set[str] = set()
    clashes: list[str] = []

    class Slow:
        def turn(self, loop: str, failures: int, lease: Lease) -> timedelta:
            if loop in holding:
                clashes.append(loop)
            holding.add(loop)
            threading.Event().wait(0.01)
            holding.discard(loop)
            return timedelta(0)

    workers = [worker(Slow()) for _ in range(4)]
    threads = [threading.Thread(target=lambda each=each: [each.step() for _ in range(20)]) for each in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not clashes


def test_an_event_during_a_reconciliation_schedules_the_next_one_earlier(
    worker: Callable[[Any], Worker], clock: ManualClock, postgres: Postgres
) -> None:
    def happen() -> None:
        with postgres.transaction() as connection:
            queries.queue_loops_of_project(connection, project=PROJECT, due_time=clock.now() + timedelta(seconds=1))

    driver = Recorder(meanwhile=happen)
    drain(worker(driver))
    driver.meanwhile = lambda: None
    clock.advance(timedelta(seconds=1))
    drain(worker(driver))
    assert len(driver.turned) == 4


def test_a_failing_loop_does_not_block_others(worker: Callable[[Any], Worker]) -> None:
    def fail() -> None:
        raise RuntimeError("a mistake of ours")

    driver = Recorder(meanwhile=fail)
    drain(worker(driver))
    assert sorted(driver.turned) == [(A, 0), (B, 0)]


def test_a_worker_survives_a_lost_connection(
    worker: Callable[[Any], Worker], postgres: Postgres, clock: ManualClock
) -> None:
    driver = Recorder()
    one = worker(driver)
    drain(one)
    with postgres.transaction() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s "
            "AND pid <> pg_backend_pid()",
            (f"vesta-{postgres.schema}",),
        )
    clock.advance(REST)
    drain(one)
    assert len(driver.turned) == 4


ITEM = f"{DATASET}-a/items/1"
TASK = f"{PROJECT}/campaigns/a/tasks/1"


@pytest.mark.parametrize(
    ("subject", "payload", "delay_seconds", "loops"),
    [
        (ITEM, ItemCreated(item=ITEM), 0.5, {A}),
        (ITEM, ItemAnnotated(item=ITEM), 0.5, {A}),
        (f"{DATASET}-b", DatasetScored(dataset=f"{DATASET}-b", scored_count=9, item_count=9), 0.1, {B}),
        (f"{DATASET}-b", DatasetScored(dataset=f"{DATASET}-b", scored_count=3, item_count=9), 0.5, {B}),
        (TASK, TaskAccepted(task=TASK), 0.5, {A, B}),
        (TASK, TaskCancelled(task=TASK), 0.5, {A, B}),
        (TASK, TaskRejected(task=TASK), 0.5, {A, B}),
        (f"{PROJECT}/trainingRuns/a-r1", TrainingRunSucceeded(), 0.1, {A, B}),
        (f"{PROJECT}/trainingRuns/a-r1", TrainingRunMeasured(), 0.1, {A, B}),
        (f"{PROJECT}/trainingRuns/a-r1", TrainingRunFailed(), 0.1, {A, B}),
        (f"{PROJECT}/trainingRuns/a-r1", TrainingRunCancelled(), 0.1, {A, B}),
        (f"{PROJECT}/deployments/a", DeploymentPromoted(), 0.1, {A, B}),
        (f"{PROJECT}/deployments/a", DeploymentRolledBack(), 0.1, {A, B}),
        (f"{PROJECT}/deployments/a", DeploymentFailed(), 0.1, {A, B}),
        (f"{PROJECT}/deployments/a", DeploymentScored(), 0.1, {A, B}),
        ("projects/other/deployments/a", DeploymentScored(), 0.1, set()),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Message) else None,
)
def test_an_event_schedules_its_loops_earlier(
    subject: str,
    payload: Message,
    delay_seconds: float,
    loops: set[str],
    worker: Callable[[Any], Worker],
    clock: ManualClock,
    postgres: Postgres,
) -> None:
    driver = Recorder()
    one = worker(driver)
    drain(one)
    driver.turned.clear()
    handler = EventHandlers(clock).handlers()[type_of(payload)]
    with postgres.transaction() as connection:
        handler(connection, [new_event("tests", subject, payload, clock.now()) for _ in range(5)])  # one reconciliation
    clock.advance(timedelta(seconds=delay_seconds) - timedelta(milliseconds=1))
    assert not one.step()
    clock.advance(timedelta(milliseconds=1))
    drain(one)
    assert sorted(loop for loop, _ in driver.turned) == sorted(loops)


def test_a_running_driver_reconciles_due_loops(
    worker: Callable[[Any], Worker], postgres: Postgres, clock: ManualClock
) -> None:
    platform = SimulatedPlatform(clock, random.Random(0))
    metrics = ConductorMetrics(CollectorRegistry())
    assert worker(Driver(postgres, platform.peers(), clock, metrics)).step()
    with postgres.transaction() as connection:
        loop = store.find_loop(connection, A)
    assert loop is not None
    assert loop.status.phase == LoopStatus.BLOCKED  # its dataset is not in the simulation
    assert "was deleted" in loop.status.message


def test_a_worker_whose_lease_expired_does_not_reschedule_the_loop(
    worker: Callable[..., Worker], clock: ManualClock, postgres: Postgres
) -> None:
    second = Recorder(answer=timedelta(hours=1))

    def overtake() -> None:
        clock.advance(LEASE_DURATION)  # nothing renews the lease meanwhile
        drain(worker(second))

    first = Recorder(answer=timedelta(0), meanwhile=overtake)
    one = worker(first)
    assert one.step()
    assert first.turned[0] in second.turned
    first.meanwhile = lambda: None
    assert not one.step()


def test_a_worker_whose_lease_expired_does_not_change_the_loop(postgres: Postgres, clock: ManualClock) -> None:
    driver = Driver(
        postgres,
        SimulatedPlatform(clock, random.Random(0)).peers(),
        clock,
        ConductorMetrics(CollectorRegistry()),
    )
    with postgres.transaction() as connection:
        slow = claim_loop(connection, clock.now())
    assert slow
    clock.advance(LEASE_DURATION)
    with postgres.transaction() as connection:
        before = store.find_loop(connection, slow.loop)
        claimed = [claim_loop(connection, clock.now()) for _ in range(2)]
    current = next(found for found in claimed if found and found.loop == slow.loop)

    with pytest.raises(LeaseLost):
        driver.turn(slow.loop, lease=slow.lease)
    with postgres.transaction() as connection:
        assert store.find_loop(connection, slow.loop) == before
    assert driver.turn(slow.loop, lease=current.lease) is not None
    with postgres.transaction() as connection:
        assert store.find_loop(connection, slow.loop) != before
