"""The process: replicas share the work, accepted labels reach the broker, and a stop is graceful."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import grpc
import pytest
from annotation_builders import Service, label, names
from grpc_health.v1 import health_pb2, health_pb2_grpc
from vesta_annotation.settings import Settings
from vesta_common.clock import SystemClock
from vesta_common.events.broker import Broker, open_consumer
from vesta_common.events.cloudevents import decode
from vesta_common.rpc.client import open_channel
from vesta_common.storage.postgres import Postgres
from vesta_local.testing import identity_of

TOPIC = "vesta.annotation.task.v1"
ARRIVES_WITHIN_MS = 20_000
STOPS_WITHIN_SECONDS = 10


@dataclass
class Replica:
    """A process of the service, with a client."""

    process: subprocess.Popen[str]
    service: Service
    metrics: str


@pytest.fixture
def start(settings: Settings, postgres: Postgres) -> Iterator[Callable[[], Replica]]:
    """Starts replicas."""
    given = {**settings.model_dump(), "s3_secret_key": settings.s3_secret_key.get_secret_value()}
    environment = {f"VESTA_ANNOTATION_{name}".upper(): str(value) for name, value in given.items()}
    running: list[tuple[subprocess.Popen[str], grpc.Channel]] = []

    def start() -> Replica:
        process = subprocess.Popen(
            [sys.executable, "-m", "vesta_annotation"],
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr
        started = next(json.loads(line) for line in process.stderr if "service_started" in line)
        door = open_channel(started["address"], identity_of("gateway"))
        running.append((process, door))
        return Replica(process, Service(started["address"], door, SystemClock(), postgres), started["metrics"])

    yield start
    for process, door in running:
        door.close()
        process.kill()
        process.communicate()


def test_replicas_share_the_work_and_publish_accepted_tasks(
    start: Callable[[], Replica],
    create_topics: Callable[..., None],
    kafka_broker: Broker,
    kafka_topic_prefix: str,
) -> None:
    create_topics(TOPIC)
    one, other = start(), start()
    one.service.has_campaign()
    tasks = one.service.has_tasks("one", "two")
    leased = {"ada": one.service.lease("ada"), "bob": other.service.lease("bob")}
    assert sorted(names(leased["ada"] + leased["bob"])) == sorted(names(tasks))
    one.service.submit("ada", leased["ada"][0], label("van"))
    other.service.submit("bob", leased["bob"][0], label("car"))

    consumer = open_consumer(
        kafka_broker,
        kafka_topic_prefix + TOPIC,
        auto_offset_reset="earliest",
        group_id=None,
        consumer_timeout_ms=ARRIVES_WITHIN_MS,
    )
    arrived = [decode(record.headers, record.value, record.key) for record, _ in zip(consumer, tasks, strict=False)]
    consumer.close()
    assert sorted(event.payload.task for event in arrived) == sorted(names(tasks))
    assert {event.type for event in arrived} == {f"{TOPIC}.accepted"}


def test_the_process_reports_health_and_metrics_and_stops_on_sigterm(
    start: Callable[[], Replica], create_topics: Callable[..., None]
) -> None:
    create_topics(TOPIC)
    replica = start()
    replica.service.has_campaign()
    with grpc.insecure_channel(replica.service.address) as channel:
        asked = health_pb2.HealthCheckRequest(service="vesta.annotation.v1.TaskService")
        status = next(
            answer.status
            for answer in health_pb2_grpc.HealthStub(channel).Watch(asked, timeout=STOPS_WITHIN_SECONDS)
            if answer.status == health_pb2.HealthCheckResponse.SERVING
        )
    assert status == health_pb2.HealthCheckResponse.SERVING
    with urllib.request.urlopen(f"http://{replica.metrics}/metrics") as page:
        assert 'vesta_annotation_rpc_seconds_count{code="OK"' in page.read().decode()
    replica.process.send_signal(signal.SIGTERM)
    assert replica.process.wait(STOPS_WITHIN_SECONDS) == 0


def test_a_missing_setting_is_named() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "vesta_annotation"],
        env={"PATH": os.defpath},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert "VESTA_ANNOTATION_DATASETS_ADDRESS" in ended.stderr
