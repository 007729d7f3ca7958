"""The topics of the catalogue on a broker: with all settings, whatever existed before."""

import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.errors import MessageSizeTooLargeError
from vesta_admin.broker import put_topics
from vesta_admin.catalogue import OVERHEAD_BYTES, Topic, topics
from vesta_common.events.broker import FETCH_BYTES_MAX, REQUEST_BYTES_MAX, Broker, close_producer, open_producer

FRAMES = "vesta.pipelining.frame.v1"
BY_NAME = {topic.name: topic for topic in topics()}


@pytest.fixture
def admin(kafka_broker: Broker) -> Iterator[KafkaAdminClient]:
    with closing(KafkaAdminClient(**kafka_broker.access)) as admin:
        yield admin


@pytest.fixture
def frames(kafka_topic_prefix: str) -> Topic:
    return replace(BY_NAME[FRAMES], name=kafka_topic_prefix + FRAMES)


def settings_of(admin: KafkaAdminClient, topic: Topic) -> dict[str, str]:
    resource = ConfigResource(ConfigResourceType.TOPIC, topic.name)
    found: dict[str, Any] = admin.describe_configs([resource], config_filter="all")["topic"][topic.name]
    return {name: found[name]["value"] for name in topic.configuration(1)}


def partitions_of(admin: KafkaAdminClient, topic: Topic) -> int:
    return len(admin.describe_topics([topic.name])[0]["partitions"])


def test_the_catalogue_says_how_long_and_how_large() -> None:
    assert BY_NAME[FRAMES].configuration(replicas=3) == {
        "retention.ms": "86400000",
        "max.message.bytes": str(8_000_000 + OVERHEAD_BYTES),
        "cleanup.policy": "delete",
        "min.insync.replicas": "2",
    }


@pytest.mark.parametrize(("replicas", "in_sync_min"), [(1, "1"), (2, "1"), (3, "2"), (5, "2")])
def test_one_of_several_replicas_may_be_away(replicas: int, in_sync_min: str) -> None:
    assert BY_NAME[FRAMES].configuration(replicas)["min.insync.replicas"] == in_sync_min


@pytest.mark.parametrize(("brokers", "replicas"), [(1, 1), (2, 2), (3, 3), (7, 3)])
def test_no_topic_wants_more_replicas_than_there_are_brokers(brokers: int, replicas: int) -> None:
    assert BY_NAME[FRAMES].replicas_of(brokers) == replicas


def test_whatever_may_be_on_a_topic_can_be_set_aside_sent_and_fetched() -> None:
    dead = BY_NAME["vesta.pipelining.dead_letter.v1"]
    assert dead.value_bytes_max >= BY_NAME[FRAMES].value_bytes_max
    largest = max(int(topic.configuration(1)["max.message.bytes"]) for topic in topics())
    assert largest <= REQUEST_BYTES_MAX <= FETCH_BYTES_MAX


def test_topics_are_made_once_and_again_is_no_error(admin: KafkaAdminClient, frames: Topic) -> None:
    done = put_topics(admin, [frames])
    assert (done.created, done.altered, done.extended) == ((frames.name,), (), ())
    again = put_topics(admin, [frames])
    assert (again.created, again.altered, again.extended) == ((), (frames.name,), ())
    assert partitions_of(admin, frames) == frames.partitions


def test_fewer_partitions_than_there_are_change_nothing(admin: KafkaAdminClient, frames: Topic) -> None:
    put_topics(admin, [frames])
    assert put_topics(admin, [replace(frames, partitions=1)]).extended == ()
    assert partitions_of(admin, frames) == frames.partitions


def test_a_record_of_the_largest_value_is_taken(kafka_broker: Broker, admin: KafkaAdminClient, frames: Topic) -> None:
    put_topics(admin, [frames])
    producer = open_producer(kafka_broker)
    producer.send(frames.name, value=bytes(frames.value_bytes_max), headers=[("ce_subject", b"s" * 1000)]).get(20)
    close_producer(producer)


@pytest.mark.apache_kafka
def test_a_broker_that_keeps_settings_has_those_of_the_catalogue(
    admin: KafkaAdminClient, kafka_broker: Broker, frames: Topic
) -> None:
    old = replace(frames, partitions=2, retention=timedelta(days=9), value_bytes_max=1000)
    put_topics(admin, [old])
    assert settings_of(admin, frames) == old.configuration(1)
    producer = open_producer(kafka_broker)
    with pytest.raises(MessageSizeTooLargeError):
        producer.send(frames.name, value=bytes(100_000)).get(20)
    assert put_topics(admin, [frames]).extended == (frames.name,)
    assert settings_of(admin, frames) == frames.configuration(1)
    assert partitions_of(admin, frames) == 6
    close_producer(producer)


@pytest.mark.apache_kafka
def test_a_record_that_the_topic_refused_is_taken_once_its_settings_allow_it(
    admin: KafkaAdminClient, kafka_broker: Broker, frames: Topic
) -> None:
    put_topics(admin, [replace(frames, value_bytes_max=1000)])
    put_topics(admin, [frames])
    producer = open_producer(kafka_broker)
    deadline = time.monotonic() + 20
    while True:  # the broker applies new settings with a delay
        try:
            producer.send(frames.name, value=bytes(frames.value_bytes_max)).get(20)
            break
        except MessageSizeTooLargeError:
            assert time.monotonic() < deadline
    close_producer(producer)
