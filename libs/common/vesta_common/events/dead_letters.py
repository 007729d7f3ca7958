"""Dead letters: records that could not be handled, stored on a topic with the reason and replayed on an operator's request."""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from vesta_common.events import inbox
from vesta_common.events.broker import DELIVERY_TIMEOUT, Broker, close_producer, open_consumer, open_producer
from vesta_common.settings import ServiceSettings

REASON_HEADER = "dead_letter_reason"
TOPIC_HEADER = "dead_letter_topic"
POSITION_HEADER = "dead_letter_position"
OMITTED_HEADER = "dead_letter_omitted_bytes"
_DEAD_LETTER_HEADERS = {REASON_HEADER, TOPIC_HEADER, POSITION_HEADER, OMITTED_HEADER}
READ_TIMEOUT = timedelta(seconds=30)
REASON_LENGTH_MAX = 2000
REPLAY_AGE_MAX = inbox.RETENTION - timedelta(days=1)


def topic_of(service: str) -> str:
    """Returns the dead-letter topic of a consuming service."""
    return f"vesta.{service}.dead_letter.v1"


@dataclass(frozen=True)
class DeadLetter:
    """A record that could not be handled.

    Attributes:
        topic: the original topic, with prefix.
        position: partition and offset in the original topic, for example `3:1024`.
        reason: why it could not be handled.
        time: when it was stored as a dead letter.
        headers: the original headers.
        omitted_bytes: size of the value if it was too large for the dead-letter topic. Such a dead letter cannot be replayed.
    """

    topic: str
    position: str
    reason: str
    time: datetime
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    omitted_bytes: int = 0


@dataclass(frozen=True)
class Replayed:
    """The result of a replay.

    Attributes:
        published: dead letters that were published again.
        too_old: dead letters that were skipped because consumers that handled the event may have deleted it from their inbox.
        without_value: dead letters that were skipped because their value was too large to be stored.
    """

    published: int
    too_old: int
    without_value: int


def send(producer: KafkaProducer, topic: str, record: Any, reason: str) -> None:
    """Stores a record as a dead letter, without its value if that is too large for the topic. Returns after the broker's acknowledgement.

    Raises:
        KafkaError: the broker did not acknowledge the record; the caller must not skip it.
    """
    dead_letter_headers = [
        (REASON_HEADER, reason[:REASON_LENGTH_MAX].encode(errors="replace")),
        (TOPIC_HEADER, record.topic.encode()),
        (POSITION_HEADER, f"{record.partition}:{record.offset}".encode()),
    ]
    headers = [*_original_headers(record), *dead_letter_headers]
    value = record.value or b""  # kafka-python rejects records with neither key nor value, which exist
    try:
        _send(producer, topic, value, record.key, headers)
    except MessageSizeTooLargeError:
        omitted = (OMITTED_HEADER, str(len(value)).encode())
        _send(producer, topic, b"", record.key, [*headers, omitted])


def _send(
    producer: KafkaProducer, topic: str, value: bytes | None, key: bytes | None, headers: list[tuple[str, bytes]]
) -> None:
    sent = producer.send(topic, value=value, key=key, headers=headers)
    sent.get(timeout=DELIVERY_TIMEOUT.total_seconds() + 5)


def read(broker: Broker, topic: str) -> Iterator[DeadLetter]:
    """Iterates over all dead letters of a topic, by partition."""
    consumer = _open_reader(broker, topic, None)
    try:
        for record in _records(consumer):
            yield _letter(record)
    finally:
        consumer.close()


def replay(broker: Broker, topic: str, group: str) -> Replayed:
    """Publishes each dead letter to its original topic again, with its original event id.

    The inbox of the consumer that failed has no entry for the event, so the consumer handles it. Other consumers discard it as a duplicate.
    Dead letters that arrive during the replay, possibly of the same events, are left for the next replay.

    Args:
        group: the consumer group that tracks which dead letters were replayed.

    Raises:
        KafkaError: the broker does not respond; dead letters that were already published are not published again by the next replay.
    """
    start, published, too_old, without_value = datetime.now(UTC), 0, 0, 0
    producer = open_producer(broker)
    consumer = _open_reader(broker, topic, group)
    try:
        for record in _records(consumer):
            letter = _letter(record)
            if start - letter.time > REPLAY_AGE_MAX:
                too_old += 1
            elif letter.omitted_bytes:
                without_value += 1
            elif letter.topic:  # otherwise the record was not written by `send`
                _send(producer, letter.topic, letter.value, letter.key, letter.headers)
                published += 1
            partition = TopicPartition(record.topic, record.partition)
            consumer.commit({partition: OffsetAndMetadata(record.offset + 1, "", -1)})
    finally:
        consumer.close()
        close_producer(producer)
    return Replayed(published, too_old, without_value)


def replay_command(service: str) -> Callable[[ServiceSettings], int]:
    """Returns the command `replay-dead-letters` of a service."""

    def command(settings: ServiceSettings) -> int:
        topic = settings.kafka_topic_prefix + topic_of(service)
        done = replay(Broker.of(settings), topic, f"{topic}.replay")
        sys.stdout.write(f"{done.published} dead letters of {service} replayed\n")
        if done.too_old:
            sys.stdout.write(
                f"{done.too_old} skipped: older than {REPLAY_AGE_MAX.days} days, so that other "
                "consumers could handle them twice\n"
            )
        if done.without_value:
            sys.stdout.write(f"{done.without_value} skipped: too large, stored without their value\n")
        return 0

    return command


def _open_reader(broker: Broker, topic: str, group: str | None) -> KafkaConsumer:
    """Opens a consumer of all partitions. Reads from the committed offsets of the group, or from the beginning."""
    consumer = open_consumer(broker, group_id=group, auto_offset_reset="earliest", enable_auto_commit=False)
    consumer.assign([TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())])
    return consumer


def _records(consumer: KafkaConsumer) -> Iterator[Any]:
    """Iterates over the records of each partition, up to its current end.

    Raises:
        KafkaTimeoutError: the broker returned no record for `READ_TIMEOUT`, although there are some.
    """
    ends = consumer.end_offsets(consumer.assignment())
    deadline = time.monotonic() + READ_TIMEOUT.total_seconds()
    while any(consumer.position(partition) < end for partition, end in ends.items()):
        if time.monotonic() >= deadline:
            raise KafkaTimeoutError(
                f"the broker returned no record for {READ_TIMEOUT.total_seconds():.0f} s; try again"
            )
        for partition, records in consumer.poll(timeout_ms=200).items():
            deadline = time.monotonic() + READ_TIMEOUT.total_seconds()
            yield from (record for record in records if record.offset < ends[partition])


def _letter(record: Any) -> DeadLetter:
    dead_letter_headers = {
        key: value.decode(errors="replace") for key, value in record.headers if key in _DEAD_LETTER_HEADERS
    }
    return DeadLetter(
        topic=dead_letter_headers.get(TOPIC_HEADER, ""),
        position=dead_letter_headers.get(POSITION_HEADER, ""),
        reason=dead_letter_headers.get(REASON_HEADER, ""),
        time=_time(record),
        key=record.key,
        value=record.value,
        headers=_original_headers(record),
        omitted_bytes=int(dead_letter_headers.get(OMITTED_HEADER, "0")),
    )


def _original_headers(record: Any) -> list[tuple[str, bytes]]:
    return [
        (key, value if value is not None else b"") for key, value in record.headers if key not in _DEAD_LETTER_HEADERS
    ]


def _time(record: Any) -> datetime:
    return datetime.fromtimestamp(record.timestamp / 1000, UTC)
