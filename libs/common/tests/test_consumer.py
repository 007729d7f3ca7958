"""Each event has its effect once, in order, whatever fails: the database, the handler, the broker, the group, the record itself."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from kafka import KafkaProducer
from prometheus_client import CollectorRegistry
from vesta_common.errors import InvalidArgument, Unavailable
from vesta_common.events import dead_letters
from vesta_common.events.broker import Broker, open_producer
from vesta_common.events.cloudevents import Event, encode_headers, new_event
from vesta_common.events.consumer import Consumer, ConsumerMetrics, Handler, KafkaOptions
from vesta_common.storage.postgres import Connection, Postgres
from vesta_contracts.annotation.v1 import TaskAccepted, TaskCancelled
from vesta_local.services import FETCH_WAIT_MS

TOPIC = "vesta.annotation.task.v1"
ACCEPTED = f"{TOPIC}.accepted"
CANCELLED = f"{TOPIC}.cancelled"
DEAD_TOPIC = "vesta.datasets.dead_letter.v1"
PATIENCE = timedelta(seconds=40)
SESSION_TIMEOUT = timedelta(seconds=2)  # a group's first assignment takes half of it
KEYS = (
    "projects/acme/campaigns/vans/tasks/1",
    "projects/acme/campaigns/vans/tasks/2",
    "projects/acme/campaigns/vans/tasks/3",
)


def accepted(number: int, key: str = KEYS[0]) -> Event:
    return new_event("annotation", key, TaskAccepted(task=key, item=str(number)), datetime.now(UTC))


@pytest.fixture
def postgres(postgres: Postgres) -> Postgres:
    with postgres.transaction() as connection:
        connection.execute("CREATE TABLE effects (number int, key text, place int GENERATED ALWAYS AS IDENTITY)")
    return postgres


@pytest.fixture
def broker(kafka_broker: Broker, kafka_topic_prefix: str, create_topics: Callable[..., None]) -> Iterator["Events"]:
    create_topics(TOPIC, partitions=2)
    create_topics(DEAD_TOPIC)
    broker = Events(kafka_broker, kafka_topic_prefix)
    yield broker
    broker.producer.close(timeout=1)


class Events:
    """Publishes as a relay would, and as others might."""

    def __init__(self, broker: Broker, prefix: str) -> None:
        self.options = KafkaOptions(broker, prefix, SESSION_TIMEOUT, FETCH_WAIT_MS)
        self.producer: KafkaProducer = open_producer(broker)

    def publish(self, *events: Event) -> None:
        for event in events:
            self.send(event.value, encode_headers(event), event.subject.encode())

    def send(self, value: bytes, headers: Sequence[tuple[str, bytes]], key: bytes) -> None:
        self.producer.send(self.options.topic_prefix + TOPIC, value=value, key=key, headers=list(headers)).get(
            timeout=20
        )

    def letters(self) -> list[dead_letters.DeadLetter]:
        return list(dead_letters.read(self.options.broker, self.options.topic_prefix + DEAD_TOPIC))


def record_effect(connection: Connection, event: Event) -> None:
    connection.execute("INSERT INTO effects (number, key) VALUES (%s, %s)", (int(event.payload.item), event.subject))


def effects(postgres: Postgres, key: str | None = None) -> list[int]:
    with postgres.transaction() as connection:
        rows = connection.execute("SELECT number, key FROM effects ORDER BY place").fetchall()
    return [row["number"] for row in rows if key in {None, row["key"]}]


def a_consumer(postgres: Postgres, broker: Events, handler: Handler = record_effect, **options: Any) -> Consumer:
    return Consumer("datasets", "labels", {ACCEPTED: handler}, postgres, broker.options, **options)


@contextmanager
def running(*consumers: Consumer) -> Iterator[None]:
    with ExitStack() as stack:
        for consumer in consumers:
            consumer.start()
            stack.callback(consumer.stop, timedelta(seconds=10))
        yield


def wait_until(condition: Callable[[], bool], patience: timedelta = PATIENCE) -> None:
    deadline = time.monotonic() + patience.total_seconds()
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_events_have_their_effect_once_in_order_and_others_are_passed_over(postgres: Postgres, broker: Events) -> None:
    numbers = list(range(40))
    events = [accepted(number, KEYS[number % 3]) for number in numbers]
    other = new_event("annotation", KEYS[0], TaskCancelled(task=KEYS[0]), datetime.now(UTC))
    broker.publish(*events[:20], other, *events[10:])  # ten come twice
    with running(a_consumer(postgres, broker)):
        wait_until(lambda: len(effects(postgres)) >= 40)
        time.sleep(0.5)
    assert sorted(effects(postgres)) == numbers
    for place, key in enumerate(KEYS):
        assert effects(postgres, key) == [number for number in numbers if number % 3 == place]
    assert broker.letters() == []


def test_a_consumer_that_comes_back_goes_on_where_it_was(postgres: Postgres, broker: Events) -> None:
    broker.publish(*(accepted(number) for number in range(5)))
    with running(a_consumer(postgres, broker)):
        wait_until(lambda: len(effects(postgres)) == 5)
    with postgres.transaction() as connection:
        connection.execute("DELETE FROM inbox")  # so that a repeat would show
    broker.publish(*(accepted(number) for number in range(5, 10)))
    with running(a_consumer(postgres, broker)):
        wait_until(lambda: len(effects(postgres)) >= 10)
    assert effects(postgres) == list(range(10))


def test_a_handler_that_fails_undoes_its_effect_and_its_event_becomes_a_dead_letter(
    postgres: Postgres, broker: Events
) -> None:
    def handle(connection: Connection, event: Event) -> None:
        record_effect(connection, event)
        if event.payload.item == "2":
            raise InvalidArgument("two is not liked", reason="TWO")

    events = [accepted(number) for number in range(5)]
    broker.publish(*events)
    with running(a_consumer(postgres, broker, handle)):
        wait_until(lambda: len(effects(postgres)) == 4)
    assert effects(postgres) == [0, 1, 3, 4]
    (letter,) = broker.letters()
    assert letter.reason == "TWO: two is not liked"
    assert letter.topic == broker.options.topic_prefix + TOPIC
    assert letter.key == KEYS[0].encode()
    assert letter.value == events[2].value
    assert ("ce_id", events[2].id.encode()) in letter.headers
    assert letter.position.endswith(":2")


def test_a_dead_letter_is_replayed_once_its_cause_is_gone_and_nobody_else_handles_it_again(
    postgres: Postgres, broker: Events
) -> None:
    fixed = threading.Event()

    def handle(connection: Connection, event: Event) -> None:
        if event.payload.item == "1" and not fixed.is_set():
            raise KeyError("one")
        record_effect(connection, event)

    other = Consumer("datasets", "others", {ACCEPTED: record_effect}, postgres, broker.options)
    with running(a_consumer(postgres, broker, handle), other):
        broker.publish(*(accepted(number) for number in range(3)))
        wait_until(lambda: sorted(effects(postgres)) == [0, 0, 1, 2, 2])
        wait_until(lambda: len(broker.letters()) == 1)
        topic = broker.options.topic_prefix + DEAD_TOPIC
        fixed.set()
        assert dead_letters.replay(broker.options.broker, topic, f"{topic}.replay") == dead_letters.Replayed(1, 0, 0)
        wait_until(lambda: sorted(effects(postgres)) == [0, 0, 1, 1, 2, 2])
        assert dead_letters.replay(broker.options.broker, topic, f"{topic}.replay") == dead_letters.Replayed(0, 0, 0)
        time.sleep(0.5)
    assert sorted(effects(postgres)) == [0, 0, 1, 1, 2, 2]


def test_what_fails_for_a_while_is_retried_until_it_works_without_leaving_the_group(
    postgres: Postgres, broker: Events
) -> None:
    working = threading.Event()
    attempts: list[int] = []

    def handle(connection: Connection, event: Event) -> None:
        attempts.append(int(event.payload.item))
        if not working.is_set():
            raise Unavailable("not yet")
        record_effect(connection, event)

    broker.publish(accepted(0), accepted(1))
    with running(a_consumer(postgres, broker, handle)):
        wait_until(lambda: len(attempts) > 5)
        working.set()
        wait_until(lambda: effects(postgres) == [0, 1])
    assert broker.letters() == []


def test_a_database_that_drops_connections_delays_but_loses_nothing(
    postgres: Postgres, broker: Events, postgres_url: str
) -> None:
    def slow(connection: Connection, event: Event) -> None:
        record_effect(connection, event)
        time.sleep(0.01)

    broker.publish(*(accepted(number) for number in range(60)))
    with (
        running(a_consumer(postgres, broker, slow, records_max=5)),
        psycopg.connect(postgres_url, autocommit=True) as admin,
    ):
        wait_until(lambda: len(effects(postgres)) > 5)
        for _ in range(3):
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
                (f"vesta-{postgres.schema}",),
            )
            time.sleep(0.1)
        wait_until(lambda: len(effects(postgres)) == 60)
    assert effects(postgres) == list(range(60))
    assert broker.letters() == []


TIME = ("ce_time", b"2026-01-01T00:00:00Z")
ENDLESS = ("ce_id", b"x" * 5000)
MALFORMED: dict[str, tuple[bytes, list[tuple[str, bytes]]]] = {
    "nothing at all": (b"", []),
    "no CloudEvent": (b"hello", [("some", b"header")]),
    "no id": (b"", [("ce_type", ACCEPTED.encode()), ("ce_source", b"x"), TIME]),
    "an endless id": (b"", [ENDLESS, ("ce_type", ACCEPTED.encode()), ("ce_source", b"x"), TIME]),
    "a value of another kind": (b"\xff\xff", encode_headers(accepted(0))),
}


def test_poison_is_set_aside_with_its_reason_and_holds_up_nothing(postgres: Postgres, broker: Events) -> None:
    for value, headers in MALFORMED.values():
        broker.send(value, headers, KEYS[0].encode())
    broker.publish(accepted(7))
    consumer = a_consumer(postgres, broker)
    with running(consumer):
        wait_until(lambda: effects(postgres) == [7])
        assert consumer.healthy()
    letters = broker.letters()
    assert len(letters) == len(MALFORMED)
    assert all(letter.reason.startswith("EVENT_MALFORMED: ") for letter in letters)


class BytesThatAreNoText(str):
    """A header's name that a hostile publisher chose."""

    __slots__ = ()

    def encode(self, *_: Any, **__: Any) -> bytes:
        return b"\xff\xfe"


def test_a_record_that_cannot_even_be_read_is_passed_over(postgres: Postgres, broker: Events) -> None:
    broker.publish(accepted(0))
    broker.send(b"x", [(BytesThatAreNoText("xx"), b"x")], KEYS[0].encode())
    broker.publish(accepted(1))
    with running(a_consumer(postgres, broker)):
        wait_until(lambda: effects(postgres) == [0, 1])


def test_so_many_dead_letters_that_the_fault_must_be_ours_stop_the_consumer(postgres: Postgres, broker: Events) -> None:
    def handle(connection: Connection, event: Event) -> None:
        if int(event.payload.item) % 2:
            raise AssertionError("our own mistake")
        record_effect(connection, event)

    broker.publish(*(accepted(number) for number in range(20)))
    consumer = a_consumer(postgres, broker, handle, dead_letters_max=4)
    with running(consumer):
        wait_until(lambda: not consumer.healthy())
    assert effects(postgres) == [0, 2, 4, 6]
    assert len(broker.letters()) == 4


def test_events_of_one_type_can_be_handled_together(postgres: Postgres, broker: Events) -> None:
    sizes: list[int] = []

    def handle(connection: Connection, events: Sequence[Event]) -> None:
        sizes.append(len(events))
        for event in events:
            record_effect(connection, event)

    broker.publish(*(accepted(number) for number in range(50)))
    consumer = Consumer("datasets", "labels", {}, postgres, broker.options, batch_handlers={ACCEPTED: handle})
    with running(consumer):
        wait_until(lambda: len(effects(postgres)) == 50)
    assert effects(postgres) == list(range(50))
    assert max(sizes) > 1


def test_two_members_share_the_work_and_a_third_takes_over_without_loss_or_repeat(
    postgres: Postgres, broker: Events
) -> None:
    def slow(connection: Connection, event: Event) -> None:
        record_effect(connection, event)
        time.sleep(0.005)

    keys = [f"key-{number}" for number in range(20)]
    total = 0

    def publish_more(count: int) -> None:
        nonlocal total
        broker.publish(*(accepted(number, keys[number % 20]) for number in range(total, total + count)))
        total += count

    first, second, third = (a_consumer(postgres, broker, slow, records_max=10) for _ in range(3))
    with running(third):
        with running(first):
            publish_more(100)
            wait_until(lambda: len(effects(postgres)) > 20)
            with running(second):
                publish_more(100)
                wait_until(lambda: len(effects(postgres)) > 150)
            publish_more(100)
            wait_until(lambda: len(effects(postgres)) > 220)
        wait_until(lambda: len(effects(postgres)) >= total)
        time.sleep(0.5)
    assert sorted(effects(postgres)) == list(range(total))
    for place, key in enumerate(keys):
        assert effects(postgres, key) == list(range(place, total, 20))


def test_what_was_done_is_measured(postgres: Postgres, broker: Events) -> None:
    registry = CollectorRegistry()
    old = Event(**{**accepted(0).__dict__, "time": datetime.now(UTC) - timedelta(minutes=1)})
    broker.publish(old)
    with running(a_consumer(postgres, broker, metrics=ConsumerMetrics("datasets", registry))):
        wait_until(lambda: effects(postgres) == [0])
        wait_until(
            lambda: registry.get_sample_value("vesta_datasets_events_handled_total", {"consumer": "labels"}) == 1.0
        )
    age = registry.get_sample_value("vesta_datasets_event_age_seconds", {"consumer": "labels"})
    assert age is not None
    assert 60 <= age < 120


def test_stopping_ends_a_retry_soon_and_without_a_broker_too(postgres: Postgres, broker: Events) -> None:
    def never(connection: Connection, event: Event) -> None:
        raise Unavailable("never")

    broker.publish(accepted(0))
    stuck = a_consumer(postgres, broker, never)
    away = Consumer("datasets", "labels", {ACCEPTED: never}, postgres, KafkaOptions(Broker("127.0.0.1:9")))
    for consumer in (stuck, away):
        consumer.start()
    time.sleep(5)
    begin = time.monotonic()
    for consumer in (stuck, away):
        assert consumer.healthy()
        consumer.stop(timedelta(seconds=10))
    assert time.monotonic() - begin < 8
    assert effects(postgres) == []
