"""While the broker, or the object store under the laptop's, dies again and again, consumers lose groups and topics; then all get on."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest
from vesta_common.events.broker import Broker, open_producer
from vesta_common.events.cloudevents import Event, encode_headers, new_event
from vesta_common.events.consumer import Consumer, KafkaOptions
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.annotation.v1 import TaskAccepted
from vesta_local.engines import addresses, events, postgres
from vesta_local.platform import Platform
from vesta_local.services import FETCH_WAIT_MS
from vesta_local.testing import RECOVERY_DEADLINE, running_platform

TOPIC = "vesta.annotation.task.v1"
KEY = "projects/acme/campaigns/vans/tasks/1"
GROUPS = 8  # about every other one stopped for ever before forgotten joins were resumed
AWAY = timedelta(seconds=14)
SESSION_TIMEOUT = timedelta(seconds=2)
PATIENCE = timedelta(seconds=90)


@pytest.fixture
def engines_to_break(broker_kind: str) -> Iterator[Platform]:
    with running_platform(block=2, only=("postgres", "objects", "events"), broker=broker_kind) as platform:
        yield platform


def test_every_group_gets_on_after_the_broker_or_its_storage_was_away(engines_to_break: Platform) -> None:
    home = engines_to_break.home
    victim = "events" if events.is_apache(home) else "objects"  # which keeps the log
    options = KafkaOptions(addresses.broker(home), session_timeout=SESSION_TIMEOUT, fetch_wait_ms=FETCH_WAIT_MS)
    seen: dict[int, set[str]] = {group: set() for group in range(GROUPS)}

    def is_seen(event_id: str) -> bool:
        return all(event_id in ids for ids in seen.values())

    with ExitStack() as stack:
        database = Postgres(postgres.url(home), "chaos", connections_max=GROUPS).open(timedelta(seconds=30))
        stack.callback(database.close)
        database.migrate()
        for group, ids in seen.items():

            def handle(_: Connection, event: Event, ids: set[str] = ids) -> None:
                ids.add(event.id)

            consumer = Consumer("datasets", f"group{group}", {f"{TOPIC}.accepted": handle}, database, options)
            consumer.start()
            stack.callback(consumer.stop, timedelta(seconds=10))
        before = _publish(options.broker)
        _await(lambda: is_seen(before))

        end = time.monotonic() + AWAY.total_seconds()
        while time.monotonic() < end:
            engines_to_break.supervisor.kill(victim)
            time.sleep(0.2)
        engines_to_break.wait_healthy(("objects", "events"), RECOVERY_DEADLINE)

        after = _publish(options.broker)
        _await(lambda: is_seen(after))


def _publish(broker: Broker) -> str:
    event = new_event("annotation", KEY, TaskAccepted(task=KEY), datetime.now(UTC))
    producer = open_producer(broker)
    headers = [(key, value) for key, value in encode_headers(event)]
    producer.send(TOPIC, value=event.value, key=KEY.encode(), headers=headers).get(timeout=30)
    producer.close(timeout=1)
    return event.id


def _await(is_done: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE.total_seconds()
    while not is_done():
        assert time.monotonic() < end, "some group does not get on"
        time.sleep(0.1)
