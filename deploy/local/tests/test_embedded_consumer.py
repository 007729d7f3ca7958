"""The consumer for the embedded broker: its fetch wait, its pauses, and the end offsets that it reports."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from kafka import KafkaProducer, TopicPartition
from vesta_common.clock import ManualClock
from vesta_common.events.broker import Broker, open_consumer, open_producer
from vesta_local.embedded_consumer import (
    FETCH_WAIT_MS_MAX,
    IDLE_AFTER,
    IDLE_FETCH_WAIT_MS,
    IDLE_POLL_MS,
    LONG_IDLE_AFTER,
    LONG_IDLE_FETCH_WAIT_MS,
    EmbeddedBrokerConsumer,
    FetchWait,
)

TICK = timedelta(milliseconds=100)
TOPIC = "vesta.annotation.task.v1"
DEADLINE_SECONDS = 60.0


def a_fetch_wait(ms: int, clock: ManualClock) -> FetchWait:
    return FetchWait(ms, lambda: clock.now().timestamp())


def is_doubled(wait: FetchWait, clock: ManualClock, seconds: float, *, is_behind: bool = True) -> bool:
    """Returns whether empty polls for this long double the wait."""
    for _ in range(int(seconds / TICK.total_seconds())):
        if wait.record_poll(True, lambda: is_behind):
            return True
        clock.advance(TICK)
    return False


def test_the_wait_doubles_each_time_up_to_the_longest() -> None:
    clock = ManualClock()
    wait = a_fetch_wait(100, clock)
    found = []
    while is_doubled(wait, clock, seconds=30):
        found.append(wait.ms)
    assert found == [200, 400, 800, 1600, 3200, FETCH_WAIT_MS_MAX]


def test_the_wait_doubles_after_a_second_and_two_fetches() -> None:
    clock = ManualClock()
    assert not is_doubled(a_fetch_wait(100, clock), clock, seconds=1.2)
    assert not is_doubled(a_fetch_wait(2000, clock), clock, seconds=5)
    assert is_doubled(a_fetch_wait(2000, clock), clock, seconds=5.2)


def test_the_wait_stays_while_there_are_no_records() -> None:
    clock = ManualClock()
    wait = a_fetch_wait(100, clock)
    assert not is_doubled(wait, clock, seconds=60, is_behind=False)
    assert wait.ms == 100


def test_records_restart_the_count() -> None:
    clock = ManualClock()
    wait = a_fetch_wait(100, clock)
    for _ in range(5):
        assert not is_doubled(wait, clock, seconds=1)
        assert not wait.record_poll(False, lambda: pytest.fail("not asked after records"))


@pytest.fixture
def producer(kafka_broker: Broker) -> Iterator[KafkaProducer]:
    producer = open_producer(kafka_broker)
    yield producer
    producer.close()


@pytest.fixture
def topic(create_topics: Callable[..., None], kafka_topic_prefix: str) -> str:
    create_topics(TOPIC, partitions=2)
    return kafka_topic_prefix + TOPIC


@pytest.fixture
def consumer(kafka_broker: Broker, topic: str) -> Iterator[EmbeddedBrokerConsumer]:
    consumer = open_consumer(kafka_broker, auto_offset_reset="earliest", fetch_max_wait_ms=1)
    assert isinstance(consumer, EmbeddedBrokerConsumer)
    consumer.assign([TopicPartition(topic, 0)])
    yield consumer
    consumer.close()


@pytest.mark.embedded_kafka
def test_end_offsets_are_those_of_the_last_records(
    consumer: EmbeddedBrokerConsumer, producer: KafkaProducer, topic: str
) -> None:
    ends = {TopicPartition(topic, 0): 3, TopicPartition(topic, 1): 0}
    for number in range(3):
        producer.send(topic, b"%d" % number, partition=0).get(timeout=20)
    assert consumer.end_offsets(list(ends)) == ends


@pytest.mark.embedded_kafka
def test_records_arrive_although_the_first_wait_is_too_short_to_read_them(
    consumer: EmbeddedBrokerConsumer, producer: KafkaProducer, topic: str
) -> None:
    sent = [producer.send(topic, b"%d" % number, partition=0) for number in range(300)]
    assert [future.get(timeout=20).offset for future in sent] == list(range(300))
    deadline, offsets = time.monotonic() + DEADLINE_SECONDS, list[int]()
    while len(offsets) < len(sent):
        assert time.monotonic() < deadline, len(offsets)
        for records in consumer.poll(timeout_ms=200).values():
            offsets += [record.offset for record in records]
    assert offsets == list(range(300))


@pytest.mark.embedded_kafka
@pytest.mark.parametrize(
    ("idle", "fetch_wait_ms"), [(2 * IDLE_AFTER, IDLE_FETCH_WAIT_MS), (2 * LONG_IDLE_AFTER, LONG_IDLE_FETCH_WAIT_MS)]
)
def test_an_idle_consumer_fetches_seldom_and_receives_the_next_record(
    consumer: EmbeddedBrokerConsumer, producer: KafkaProducer, topic: str, idle: timedelta, fetch_wait_ms: int
) -> None:
    consumer._last_record_time = time.monotonic() - idle.total_seconds()
    start = time.monotonic()
    assert [consumer.poll(timeout_ms=50) for _ in range(3)] == [{}] * 3
    assert time.monotonic() - start >= 3 * IDLE_POLL_MS / 1000
    assert consumer._fetcher.config["fetch_max_wait_ms"] == fetch_wait_ms
    producer.send(topic, b"next", partition=0).get(timeout=20)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (polled := consumer.poll(timeout_ms=400)):
        assert time.monotonic() < deadline
    assert [record.value for records in polled.values() for record in records] == [b"next"]
    consumer.poll(timeout_ms=0)
    assert consumer._fetcher.config["fetch_max_wait_ms"] == 1
