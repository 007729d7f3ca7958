"""Consumes all event topics from their end offsets and publishes each event to watchers. Each process has a consumer without a group."""

import re
import threading
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta

import structlog
from google.api import resource_pb2
from google.protobuf import descriptor_pool
from kafka import KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import CorruptRecordError, KafkaError
from vesta_common.errors import InvalidArgument, Unavailable
from vesta_common.events.broker import Broker, open_consumer
from vesta_common.events.cloudevents import decode
from vesta_common.events.consumer import KafkaOptions
from vesta_common.events.consumer.unreadable import is_unreadable
from vesta_common.resources.names import project_of
from vesta_common.service_thread import NO_PAUSE, ServiceThread
from vesta_contracts import everything
from vesta_contracts.gateway.v1 import ProjectEvent

POLL_TIMEOUT_MS = 500
TOPICS_INTERVAL = timedelta(seconds=5)
END_OFFSETS_TIMEOUT = timedelta(seconds=10)
BACKOFF_MAX = timedelta(seconds=1)

Publish = Callable[[str, ProjectEvent], None]
"""Receives an event of a project; called in the tail's thread."""

log = structlog.get_logger()


def event_topics() -> set[str]:
    """Returns the event topics, one per resource type. Camera frames and dead letters are on other topics."""
    topics = set()
    for file in everything.FILES:
        for message in descriptor_pool.Default().FindFileByName(file).message_types_by_name.values():
            if message.GetOptions().Extensions[resource_pb2.resource].type:
                service = message.full_name.split(".")[1]
                resource = re.sub(r"(?<!^)(?=[A-Z])", "_", message.name).lower()
                topics.add(f"vesta.{service}.{resource}.v1")
    return topics


def to_project_event(record: ConsumerRecord) -> tuple[str, ProjectEvent]:
    """Returns the project and the event of a record.

    Raises:
        InvalidArgument: the record is not an event of a project.
    """
    decoded = decode(record.headers, record.value, record.key)
    event = ProjectEvent(id=decoded.id, type=decoded.type, subject=decoded.subject)
    event.time.FromDatetime(decoded.time)
    event.payload.Pack(decoded.payload)
    return project_of(decoded.subject), event


def new_consumer(kafka: KafkaOptions) -> KafkaConsumer:
    """Opens a consumer without a group."""
    return open_consumer(
        kafka.broker, enable_auto_commit=False, auto_offset_reset="earliest", fetch_max_wait_ms=kafka.fetch_wait_ms
    )


class Tail(ServiceThread):
    """Consumes the event topics in its own thread.

    Args:
        is_wanted: returns False if a project has no watchers, so that its events need not be decoded.

    Attributes:
        following: set once every event published from then on will be received.
    """

    def __init__(
        self,
        kafka: KafkaOptions,
        publish: Publish,
        is_wanted: Callable[[str], bool],
        consumer_of: Callable[[KafkaOptions], KafkaConsumer] = new_consumer,
        is_unreadable: Callable[[Broker, TopicPartition, int], bool] = is_unreadable,
    ) -> None:
        super().__init__("tail", (KafkaError, OSError), BACKOFF_MAX)
        self._kafka = kafka
        self._publish = publish
        self._is_wanted = is_wanted
        self._consumer_of = consumer_of
        self._is_unreadable = is_unreadable
        self._topics = {kafka.topic_prefix + topic for topic in event_topics()}
        self._positions: dict[TopicPartition, int] = {}
        self._polled = threading.Condition()
        self._poll_count = 0
        self.following = threading.Event()

    def healthy(self) -> bool:
        """Returns True while events are received."""
        return super().healthy() and self.following.is_set()

    def end_offsets(self) -> dict[TopicPartition, int]:
        """Returns offsets up to which all records have been published to watchers. Blocks for one or two polls.

        Raises:
            Unavailable: EVENTS_UNAVAILABLE, events are currently not received.
        """
        with self._polled:
            poll_count = self._poll_count
            if not self._polled.wait_for(
                lambda: self._poll_count > poll_count + 1, END_OFFSETS_TIMEOUT.total_seconds()
            ):
                raise Unavailable("events are currently not received; retry later", reason="EVENTS_UNAVAILABLE")
            return dict(self._positions)

    def _step(self) -> timedelta:
        try:
            with closing(self._consumer_of(self._kafka)) as consumer:
                self._follow(consumer)
        finally:
            self.following.clear()
        return NO_PAUSE

    def _follow(self, consumer: KafkaConsumer) -> None:
        next_refresh = 0.0
        while not self._stopping.is_set():
            if time.monotonic() >= next_refresh:
                next_refresh = time.monotonic() + TOPICS_INTERVAL.total_seconds()
                self._assign_new_partitions(consumer)
                self.following.set()
            if not self._positions:
                self._stopping.wait(POLL_TIMEOUT_MS / 1000)
                continue
            try:
                polled = consumer.poll(POLL_TIMEOUT_MS)
            except CorruptRecordError:
                self._skip_unreadable(consumer)
                continue
            for partition, records in polled.items():
                for record in records:
                    self._deliver(record)
                self._positions[partition] = records[-1].offset + 1
            with self._polled:
                self._poll_count += 1
                self._polled.notify_all()

    def _skip_unreadable(self, consumer: KafkaConsumer) -> None:
        """Skips a record that kafka-python cannot read. kafka-python does not report its position."""
        # At the end of a partition, the check takes seconds. Partitions with more records are checked first.
        likely_first = sorted(self._positions.items(), key=lambda at: (consumer.highwater(at[0]) or 0) <= at[1])
        for partition, offset in likely_first:
            if self._stopping.is_set() or not self._is_unreadable(self._kafka.broker, partition, offset):
                continue
            log.error("event_unreadable", topic=partition.topic, partition=partition.partition, offset=offset)
            self._positions[partition] = offset + 1
            break
        for partition, offset in self._positions.items():
            consumer.seek(partition, offset)

    def _assign_new_partitions(self, consumer: KafkaConsumer) -> None:
        """Assigns new partitions: at the start from their end offsets; later ones are new topics and are read from the beginning."""
        partitions = {
            TopicPartition(topic, number)
            for topic in consumer.topics() & self._topics
            for number in consumer.partitions_for_topic(topic) or ()
        }
        new = partitions - self._positions.keys()
        if not new and consumer.assignment() == partitions:
            return
        starts = dict.fromkeys(new, 0) if self.following.is_set() else consumer.end_offsets(list(new)) if new else {}
        self._positions.update(starts)
        consumer.assign(list(self._positions))
        for partition, offset in self._positions.items():
            consumer.seek(partition, offset)

    def _deliver(self, record: ConsumerRecord) -> None:
        try:
            segments = (record.key or b"").decode().split("/")
            if len(segments) > 1 and not self._is_wanted("/".join(segments[:2])):
                return
            self._publish(*to_project_event(record))
        except (InvalidArgument, UnicodeDecodeError) as error:
            log.warning("event_skipped", topic=record.topic, offset=record.offset, error=str(error))
