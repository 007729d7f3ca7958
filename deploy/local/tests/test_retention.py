"""What is deleted from the broker and what stays: only records that all groups have read, or that are past the topic's retention."""

from datetime import UTC, datetime, timedelta

import pytest
from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from vesta_admin import broker
from vesta_admin.catalogue import Topic, topics
from vesta_local.engines.addresses import admin_settings
from vesta_local.engines.retention import KEPT_AT_LEAST, delete_old_records
from vesta_local.platform import Platform
from vesta_local.testing import RECOVERY_DEADLINE

pytestmark = pytest.mark.embedded_kafka  # Apache Kafka deletes records itself
SOON, LATER = timedelta(minutes=1), KEPT_AT_LEAST + timedelta(minutes=1)
RETENTION = timedelta(days=1)


@pytest.fixture
def topic(engines: Platform, kafka_topic_prefix: str) -> Topic:
    """A topic with one consumer group, and five records in each of two partitions."""
    topic = Topic(f"{kafka_topic_prefix}frames", 2, RETENTION, 1_000_000, (f"{kafka_topic_prefix}readers",))
    broker.create_topics(admin_settings(engines.home), [topic])
    produce(engines, topic, 5)
    return topic


def produce(engines: Platform, topic: Topic, count: int) -> None:
    producer = KafkaProducer(bootstrap_servers=engines.home.address("events"), acks="all", enable_idempotence=False)
    for number in range(count):
        for partition in range(topic.partitions):
            producer.send(topic.name, b"%d" % number, partition=partition).get(timeout=10)
    producer.close()


def commit(engines: Platform, topic: Topic, partition: int, offset: int) -> None:
    consumer = KafkaConsumer(bootstrap_servers=engines.home.address("events"), group_id=topic.groups[0])
    place = TopicPartition(topic.name, partition)
    consumer.assign([place])
    consumer.commit({place: OffsetAndMetadata(offset, "", -1)})
    consumer.close(autocommit=False)


def kept(engines: Platform, topic: Topic, partition: int, group: str | None = None, count: int = 1) -> list[int]:
    """Returns the offsets of records from the first one, or from the group's offset; waits for this many."""
    consumer = KafkaConsumer(
        bootstrap_servers=engines.home.address("events"), group_id=group, auto_offset_reset="earliest"
    )
    place = TopicPartition(topic.name, partition)
    consumer.assign([place])
    if group is None:
        consumer.seek(place, 0)
    found: list[int] = []
    for _ in range(20):
        found += [record.offset for record in consumer.poll(timeout_ms=500).get(place, [])]
        if len(found) >= count:
            break
    consumer.close(autocommit=False)
    return found


def test_what_every_group_has_read_goes_after_a_while(engines: Platform, topic: Topic) -> None:
    commit(engines, topic, 0, 3)
    now = datetime.now(UTC)
    assert delete_old_records(engines.home, [topic], now + SOON) == 0
    assert delete_old_records(engines.home, [topic], now + LATER) == 3
    assert kept(engines, topic, 0, count=2) == [3, 4]
    assert kept(engines, topic, 1, count=5) == [0, 1, 2, 3, 4]  # where the group has no committed offset yet
    assert delete_old_records(engines.home, [topic], now + LATER) == 0


def test_what_nobody_reads_goes_after_a_while_and_the_newest_stays(engines: Platform, topic: Topic) -> None:
    unread = Topic(topic.name, topic.partitions, RETENTION, 1_000_000)
    assert delete_old_records(engines.home, [unread], datetime.now(UTC) + LATER) == 8
    assert kept(engines, topic, 0) == [4]


def test_what_is_past_its_retention_goes_read_or_not(engines: Platform, topic: Topic) -> None:
    assert delete_old_records(engines.home, [topic], datetime.now(UTC) + RETENTION + SOON) == 8


def test_dead_letters_wait_for_their_retention(engines: Platform, topic: Topic) -> None:
    dead = Topic(topic.name, topic.partitions, RETENTION, 1_000_000, is_dead_letters=True)
    now = datetime.now(UTC)
    assert delete_old_records(engines.home, [dead], now + LATER) == 0
    assert delete_old_records(engines.home, [dead], now + RETENTION + SOON) == 8


def test_offsets_and_groups_go_on_where_they_were(engines: Platform, topic: Topic) -> None:
    commit(engines, topic, 0, 5)
    assert delete_old_records(engines.home, [topic], datetime.now(UTC) + LATER) == 4
    engines.supervisor.kill("events")
    engines.wait_healthy(["events"], RECOVERY_DEADLINE)
    produce(engines, topic, 2)
    assert kept(engines, topic, 0, topic.groups[0], count=2) == [5, 6]
    assert kept(engines, topic, 0, count=3) == [4, 5, 6]


def test_the_catalogue_names_the_groups_for_which_records_are_kept() -> None:
    by_name = {topic.name: topic for topic in topics()}
    assert by_name["vesta.annotation.task.v1"].groups == ("datasets.labels", "conductor.loops")
    assert by_name["vesta.pipelining.frame.v1"].groups == ("pipelining.frames",)
    assert [topic.name for topic in topics() if topic.is_dead_letters]
