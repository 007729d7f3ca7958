"""The whole service on the real engines, with simulated services over real gRPC: events alone drive a Loop."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conductor_builders import DATASET, NAMES, PROJECT
from conductor_simulation import SimulatedPlatform
from vesta_common.events.broker import Broker, open_consumer, open_producer
from vesta_common.events.cloudevents import decode, encode_headers, new_event
from vesta_common.rpc.client import open_channel
from vesta_common.rpc.server import Server
from vesta_common.runtime.service import App, stop_app
from vesta_conductor.app import build
from vesta_conductor.projects.child_resources import PEERS
from vesta_conductor.settings import Settings
from vesta_contracts.conductor.v1 import (
    CreateLoopRequest,
    CreateProjectRequest,
    GetLoopRequest,
    ListDecisionsRequest,
    Loop,
    LoopPolicy,
    LoopServiceStub,
    LoopStatus,
    Project,
    ProjectServiceStub,
)
from vesta_contracts.serving.v1 import DeploymentScored
from vesta_local.testing import identity_of

DEADLINE = timedelta(seconds=90)
TOPICS = (
    "vesta.annotation.task.v1",
    "vesta.conductor.loop.v1",
    "vesta.conductor.project.v1",
    "vesta.conductor.dead_letter.v1",
    "vesta.datasets.dataset.v1",
    "vesta.datasets.item.v1",
    "vesta.serving.deployment.v1",
    "vesta.training.training_run.v1",
)


class RunningClock:
    """The system clock as the clock of the simulation."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def advance(self, by: timedelta) -> None:
        """Does nothing."""


def locked(platform: SimulatedPlatform, lock: threading.Lock) -> list[Any]:
    """The simulation's servicers, which handle one call at a time."""

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with lock:
                answer = method(*arguments)
                copy = type(answer)()
                copy.CopyFrom(answer)
                return copy

        return call

    servicers = platform.servicers()
    for servicer in servicers:
        for name in dir(servicer):
            if name[0].isupper():
                setattr(servicer, name, guarded(getattr(servicer, name)))
    return servicers


@pytest.fixture
def lock() -> threading.Lock:
    return threading.Lock()


@pytest.fixture
def simulation() -> SimulatedPlatform:
    return SimulatedPlatform(RunningClock(), random.Random(0))  # type: ignore[arg-type]


@pytest.fixture
def peers_address(simulation: SimulatedPlatform, lock: threading.Lock) -> Iterator[str]:
    server = Server(identity_of("peers"), "127.0.0.1:0", locked(simulation, lock))
    server.start()
    yield server.address
    server.stop()


@pytest.fixture
def start(
    service_settings: Callable[[str], dict[str, Any]], create_topics: Callable[..., None], peers_address: str
) -> Iterator[Callable[[], tuple[App, Server]]]:
    """Starts replicas of the conductor."""
    create_topics(*TOPICS)
    running: list[tuple[App, Server]] = []

    def start() -> tuple[App, Server]:
        peers = {f"{peer}_address": peers_address for peer in PEERS}
        app = build(Settings(**service_settings("conductor"), **peers))
        server = Server(identity_of("conductor"), "127.0.0.1:0", app.servicers, app.registry)
        for component in app.components:
            component.start()
        server.start()
        running.append((app, server))
        return running[-1]

    yield start
    for app, server in running:
        stop_app(app, server)


def test_two_replicas_run_a_loop_by_events_and_publish_each_round_once(
    start: Callable[[], tuple[App, Server]],
    simulation: SimulatedPlatform,
    lock: threading.Lock,
    kafka_broker: Broker,
    kafka_topic_prefix: str,
) -> None:
    replicas = [start(), start()]
    channel = open_channel(replicas[0][1].address, identity_of("gateway"))
    projects, loops = ProjectServiceStub(channel), LoopServiceStub(channel)
    projects.CreateProject(CreateProjectRequest(project_id="acme", project=Project()))
    policy = LoopPolicy(dataset=DATASET, label_budget=60, batch_size=20, test_labels=10, control_share=0.2)
    made = loops.CreateLoop(CreateLoopRequest(parent=PROJECT, loop_id="vans", loop=Loop(policy=policy)))

    producer = open_producer(kafka_broker)
    deadline = time.monotonic() + DEADLINE.total_seconds()
    while (loop := loops.GetLoop(GetLoopRequest(name=made.name))).status.phase != LoopStatus.EXHAUSTED:
        assert time.monotonic() < deadline, loop.status
        with lock:
            simulation.live()
        event = new_event("serving", NAMES.deployment, DeploymentScored(), datetime.now(UTC))
        producer.send(
            kafka_topic_prefix + event.topic,
            value=event.payload.SerializeToString(),
            key=event.subject.encode(),
            headers=encode_headers(event),
        ).get(timeout=10)
        threading.Event().wait(0.15)
    producer.close()

    assert loop.status.labels_spent == 60 == len(simulation.tasks)
    assert set(simulation.made.values()) == {1}
    decisions = loops.ListDecisions(ListDecisionsRequest(parent=made.name, page_size=1000)).decisions
    ended = [found.number for found in loop.status.rounds if found.HasField("end_time")]
    told = _told(kafka_broker, kafka_topic_prefix + "vesta.conductor.loop.v1", len(decisions) + len(ended))
    assert [event.payload.round.number for event in told if event.type.endswith("round_completed")] == ended
    assert [event.payload.decision for event in told if event.type.endswith("decided")] == list(reversed(decisions))
    channel.close()


def _told(broker: Broker, topic: str, count: int) -> list[Any]:
    consumer = open_consumer(broker, topic, auto_offset_reset="earliest", fetch_max_wait_ms=50)
    events: list[Any] = []
    deadline = time.monotonic() + 20
    while len(events) < count and time.monotonic() < deadline:
        for records in consumer.poll(timeout_ms=200).values():
            events += [decode(record.headers, record.value) for record in records]
    consumer.close()
    return events
