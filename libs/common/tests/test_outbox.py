"""What commits is published: at least once, in order per key, whoever dies in between; what does not commit never is."""

import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kafka import TopicPartition
from kafka.errors import KafkaError
from vesta_common.errors import InvalidArgument
from vesta_common.events import inbox
from vesta_common.events.broker import Broker, open_consumer
from vesta_common.events.cloudevents import Event, decode, new_event
from vesta_common.events.outbox import EVENT_BYTES_MAX, Relay, publish
from vesta_common.resources import idempotency
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.annotation.v1 import TaskAccepted, TaskCancelled

TOPIC = "vesta.annotation.task.v1"
PATIENCE = timedelta(seconds=20)


def an_event(number: int = 0, subject: str = "projects/acme/campaigns/vans/tasks/1") -> Event:
    return new_event("annotation", subject, TaskAccepted(task=subject, item=str(number)), datetime.now(UTC))


class Topic:
    """Reads a topic of one partition from its beginning, as often as asked."""

    def __init__(self, broker: Broker, name: str) -> None:
        self._consumer = open_consumer(broker, fetch_max_wait_ms=50)
        self._partition = TopicPartition(name, 0)
        self._consumer.assign([self._partition])

    def events(self, at_least: int, patience: timedelta = PATIENCE) -> list[Event]:
        """All events, once there are so many, or what there is when patience ends."""
        self._consumer.seek(self._partition, 0)
        found: list[Event] = []
        deadline = time.monotonic() + patience.total_seconds()
        while len(found) < at_least and time.monotonic() < deadline:
            for records in self._consumer.poll(timeout_ms=100).values():
                found += [decode(record.headers, record.value, record.key) for record in records]
        return found

    def close(self) -> None:
        self._consumer.close()


@pytest.fixture
def topic(kafka_broker: Broker, kafka_topic_prefix: str, create_topics: Callable[..., None]) -> Iterator[Topic]:
    create_topics(TOPIC)
    topic = Topic(kafka_broker, kafka_topic_prefix + TOPIC)
    yield topic
    topic.close()


@pytest.fixture
def relay(postgres: Postgres, kafka_broker: Broker, kafka_topic_prefix: str) -> Callable[[], Relay]:
    return lambda: Relay(postgres, kafka_broker, kafka_topic_prefix)


@contextmanager
def running(*relays: Relay) -> Iterator[None]:
    with ExitStack() as stack:
        for relay in relays:
            relay.start()
            stack.callback(relay.stop, timedelta(seconds=10))
        yield


def rows_left(postgres: Postgres) -> int:
    with postgres.transaction() as connection:
        row = connection.execute("SELECT count(*) AS n FROM outbox").fetchone()
    assert row is not None
    return int(row["n"])


def wait_until(condition: Callable[[], bool], patience: timedelta = PATIENCE) -> None:
    deadline = time.monotonic() + patience.total_seconds()
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_what_commits_is_published_and_forgotten(postgres: Postgres, relay: Callable[[], Relay], topic: Topic) -> None:
    event = an_event()
    with running(relay()):
        with postgres.transaction() as connection:
            publish(connection, event)
        assert topic.events(1) == [event]
        wait_until(lambda: rows_left(postgres) == 0)


def test_events_that_are_added_together_keep_their_order(
    postgres: Postgres, relay: Callable[[], Relay], topic: Topic
) -> None:
    events = [an_event(number) for number in (3, 1, 2, 0)]
    with running(relay()):
        with postgres.transaction() as connection:
            publish(connection, *events)
        assert topic.events(len(events)) == events


def test_what_is_rolled_back_is_never_published(postgres: Postgres, relay: Callable[[], Relay], topic: Topic) -> None:
    def work(connection: Connection) -> None:
        publish(connection, an_event(1))
        raise KeyError

    with running(relay()):
        with pytest.raises(KeyError):
            postgres.run(work)
        with postgres.transaction() as connection:
            publish(connection, an_event(2))
        assert [event.payload.item for event in topic.events(1)] == ["2"]


def test_a_new_event_wakes_the_relay(postgres: Postgres, relay: Callable[[], Relay], topic: Topic) -> None:
    with running(relay()):
        with postgres.transaction() as connection:
            publish(connection, an_event(0))
        topic.events(1)
        begin = time.monotonic()
        for number in range(1, 6):
            with postgres.transaction() as connection:
                publish(connection, an_event(number))
            assert len(topic.events(number + 1)) == number + 1
        assert time.monotonic() - begin < 4  # polling alone would take five seconds


def test_a_transaction_that_takes_its_time_loses_nothing_and_holds_up_no_other(
    postgres: Postgres, relay: Callable[[], Relay], topic: Topic
) -> None:
    with running(relay()):
        with postgres.connect() as early:
            publish(early, an_event(1))
            with postgres.connect() as late:
                publish(late, an_event(2))
            assert [event.payload.item for event in topic.events(1)] == ["2"]
        assert [event.payload.item for event in topic.events(2)] == ["2", "1"]


def test_changes_of_a_resource_are_told_in_order_whichever_transaction_began_first(
    postgres: Postgres, relay: Callable[[], Relay], topic: Topic
) -> None:
    resource = b"SELECT pg_advisory_xact_lock(1)"  # stands for the resource's row
    with postgres.connect() as older, postgres.connect() as younger:
        older.execute("SELECT pg_current_xact_id()")
        younger.execute(resource)
        publish(younger, an_event(1))
        younger.commit()
        older.execute(resource)
        publish(older, an_event(2))
        older.commit()
    with running(relay()):
        assert [event.payload.item for event in topic.events(2)] == ["1", "2"]


def test_killed_between_acknowledgement_and_deletion_repeats_the_event_with_its_id(
    postgres: Postgres, kafka_broker: Broker, kafka_topic_prefix: str, topic: Topic
) -> None:
    class Dying(Relay):
        def _send(self, rows: Sequence[dict[str, Any]]) -> list[int]:
            super()._send(rows)
            raise KafkaError("dead")

    event = an_event()
    with postgres.transaction() as connection:
        publish(connection, event)
    with postgres.connect(autocommit=True) as connection, pytest.raises(KafkaError):
        Dying(postgres, kafka_broker, kafka_topic_prefix).publish_batch(connection)
    assert rows_left(postgres) == 1
    with running(Relay(postgres, kafka_broker, kafka_topic_prefix)):
        assert topic.events(2) == [event, event]


def test_many_writers_two_relays_and_a_killed_leader_lose_nothing_and_keep_order_per_key(
    postgres: Postgres, relay: Callable[[], Relay], topic: Topic
) -> None:
    writers, each = 6, 40

    def write(writer: int) -> None:
        chance = random.Random(writer)
        for number in range(each):
            with postgres.connect() as connection:
                if chance.random() < 0.3:
                    publish(connection, an_event(-1, f"key-{writer}"))
                    time.sleep(chance.random() / 100)
                    connection.rollback()
                publish(connection, an_event(number, f"key-{writer}"))
                time.sleep(chance.random() / 100)

    stopping = threading.Event()

    def kill_leaders() -> None:
        with postgres.connect(autocommit=True) as connection:
            while not stopping.wait(0.4):
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
                    " AND pid IN (SELECT pid FROM pg_stat_activity WHERE application_name = %s)",
                    (f"vesta-{postgres.schema}",),
                )

    with running(relay(), relay()), ThreadPoolExecutor(writers + 1) as threads:
        killer = threads.submit(kill_leaders)
        for done in [threads.submit(write, writer) for writer in range(writers)]:
            done.result()
        stopping.set()
        killer.result()
        wait_until(lambda: rows_left(postgres) == 0)
        events = topic.events(10**6, timedelta(seconds=3))
    seen: dict[str, list[int]] = defaultdict(list)
    ids: set[str] = set()
    for event in events:
        if event.id not in ids:  # as an inbox would
            ids.add(event.id)
            seen[event.subject].append(int(event.payload.item))
    assert seen == {f"key-{writer}": list(range(each)) for writer in range(writers)}


def test_one_relay_of_many_publishes(postgres: Postgres, relay: Callable[[], Relay], topic: Topic) -> None:
    with running(relay(), relay(), relay()):
        for number in range(20):
            with postgres.transaction() as connection:
                publish(connection, an_event(number))
        assert len(topic.events(20)) == 20
        wait_until(lambda: rows_left(postgres) == 0)
        assert len(topic.events(21, timedelta(seconds=1))) == 20


def test_a_broker_that_is_away_keeps_nobody_from_stopping_and_loses_nothing(
    postgres: Postgres, relay: Callable[[], Relay], topic: Topic, kafka_topic_prefix: str
) -> None:
    event = an_event()
    away = Relay(postgres, Broker("127.0.0.1:9"), kafka_topic_prefix)
    away.start()
    with postgres.transaction() as connection:
        publish(connection, event)
    time.sleep(1)
    assert away.healthy()
    begin = time.monotonic()
    away.stop(timedelta(seconds=10))
    assert time.monotonic() - begin < 9
    assert rows_left(postgres) == 1
    with running(relay()):
        assert topic.events(1) == [event]


def test_a_topic_that_refuses_holds_up_no_other(
    postgres: Postgres, kafka_broker: Broker, kafka_topic_prefix: str, topic: Topic
) -> None:
    class Refused(Relay):
        def _send_one(self, producer: Any, row: dict[str, Any]) -> Any:
            if row["headers"] and ["ce_type", "vesta.annotation.campaign.v1.closed"] in row["headers"]:
                raise KafkaError("no such topic")
            return super()._send_one(producer, row)

    accepted = an_event()
    refused = Event(**{**accepted.__dict__, "type": "vesta.annotation.campaign.v1.closed"})
    with postgres.transaction() as connection:
        publish(connection, refused, accepted)
    relay = Refused(postgres, kafka_broker, kafka_topic_prefix)
    with running(relay):
        assert topic.events(1) == [accepted]
        wait_until(lambda: rows_left(postgres) == 1)
        (problem,) = relay.problems()
        assert problem.startswith("Kafka rejects events of the topic vesta.annotation.campaign.v1 (KafkaError); check")


def test_an_event_that_no_broker_takes_is_refused_at_once(postgres: Postgres) -> None:
    large = new_event("annotation", "x", TaskAccepted(task="x" * EVENT_BYTES_MAX), datetime.now(UTC))
    with postgres.transaction() as connection, pytest.raises(InvalidArgument) as refused:
        publish(connection, large)
    assert refused.value.reason == "EVENT_TOO_LARGE"


def test_old_entries_are_forgotten_while_events_are_published(
    postgres: Postgres, relay: Callable[[], Relay], topic: Topic
) -> None:
    with postgres.transaction() as connection:
        inbox.new_among(connection, "consumer", ["old", "new"])
        connection.execute("UPDATE inbox SET handle_time = now() - interval '15 days' WHERE event_id = 'old'")
        for request_id in ("old", "new"):
            request = TaskCancelledRequest(request_id)
            idempotency.once(connection, request, TaskCancelled, lambda: TaskCancelled(task="x"))
        connection.execute("UPDATE request_log SET create_time = now() - interval '8 days' WHERE request_id = 'old'")
    with running(relay()):
        wait_until(lambda: remaining(postgres) == (["new"], ["new"]))


class TaskCancelledRequest:
    """Enough of a request for the request log."""

    DESCRIPTOR = TaskCancelled.DESCRIPTOR

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id

    def SerializeToString(self, deterministic: bool = False) -> bytes:
        return self.request_id.encode()


def remaining(postgres: Postgres) -> tuple[list[str], list[str]]:
    with postgres.transaction() as connection:
        events = [row["event_id"] for row in connection.execute("SELECT event_id FROM inbox")]
        requests = [row["request_id"] for row in connection.execute("SELECT request_id FROM request_log")]
    return events, requests
