"""A record that is set aside is with the broker, whole and with its reason, before anybody goes on."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from kafka.errors import KafkaError
from prometheus_client import CollectorRegistry
from vesta_common.events import dead_letters
from vesta_common.events.broker import REQUEST_BYTES_MAX, Broker
from vesta_common.events.consumer.dead_letter_topic import DeadLetterTopic
from vesta_common.events.consumer.metrics import ConsumerMetrics

TOPIC = "vesta.datasets.dead_letter.v1"


@dataclass(frozen=True)
class Record:
    """As kafka-python gives them."""

    topic: str = "vesta.annotation.task.v1"
    partition: int = 3
    offset: int = 7
    key: bytes | None = b"key"
    value: bytes | None = b"value"
    headers: tuple[tuple[str, bytes], ...] = (("ce_id", b"e1"),)


def topic_of(broker: Broker, prefix: str, registry: CollectorRegistry) -> DeadLetterTopic:
    return DeadLetterTopic(broker, prefix + TOPIC, "labels", ConsumerMetrics("datasets", registry))


def count(registry: CollectorRegistry) -> float | None:
    return registry.get_sample_value("vesta_datasets_events_dead_total", {"consumer": "labels"})


def test_what_is_kept_is_whole_has_its_reason_and_is_counted(
    kafka_broker: Broker, kafka_topic_prefix: str, create_topics: Callable[..., None]
) -> None:
    create_topics(TOPIC)
    registry = CollectorRegistry()
    topic = topic_of(kafka_broker, kafka_topic_prefix, registry)
    topic.keep(Record(), "TWO: two is not liked")
    topic.close()
    topic.keep(Record(key=None, value=None, headers=()), "once more, after it was closed")
    topic.close()
    first, second = dead_letters.read(kafka_broker, kafka_topic_prefix + TOPIC)
    assert (first.topic, first.position, first.reason) == ("vesta.annotation.task.v1", "3:7", "TWO: two is not liked")
    assert (first.key, first.value, first.headers) == (b"key", b"value", [("ce_id", b"e1")])
    assert (second.key, second.value, second.headers) == (None, b"", [])
    assert count(registry) == 2


@pytest.mark.apache_kafka
def test_reading_ends_with_the_last_letter_where_the_broker_tells_where_that_is(
    kafka_broker: Broker, kafka_topic_prefix: str, create_topics: Callable[..., None]
) -> None:
    create_topics(TOPIC, partitions=3)
    topic = topic_of(kafka_broker, kafka_topic_prefix, CollectorRegistry())
    topic.keep(Record(), "TWO: two is not liked")
    topic.close()
    letters = dead_letters.read(kafka_broker, kafka_topic_prefix + TOPIC)
    assert next(letters).position == "3:7"
    begin = time.monotonic()
    assert list(letters) == []
    assert time.monotonic() - begin < dead_letters.READ_TIMEOUT.total_seconds()


def test_what_is_too_large_for_the_topic_is_kept_without_its_value_and_is_not_replayed(
    kafka_broker: Broker, kafka_topic_prefix: str, create_topics: Callable[..., None]
) -> None:
    create_topics(TOPIC)
    topic = topic_of(kafka_broker, kafka_topic_prefix, CollectorRegistry())
    size_bytes = REQUEST_BYTES_MAX + 1
    topic.keep(Record(value=bytes(size_bytes)), "STREAM_NOT_FOUND: nobody knows the camera")
    topic.close()
    name = kafka_topic_prefix + TOPIC
    (letter,) = dead_letters.read(kafka_broker, name)
    assert (letter.key, letter.value, letter.headers) == (b"key", b"", [("ce_id", b"e1")])
    assert (letter.reason, letter.omitted_bytes) == ("STREAM_NOT_FOUND: nobody knows the camera", size_bytes)
    assert dead_letters.replay(kafka_broker, name, f"{name}.replay") == dead_letters.Replayed(0, 0, 1)


def test_what_the_broker_does_not_have_is_not_kept() -> None:
    registry = CollectorRegistry()
    topic = topic_of(Broker("127.0.0.1:9"), "", registry)
    with pytest.raises(KafkaError):
        topic.keep(Record(), "in vain")
    topic.close()
    assert count(registry) == 0
