"""Records that could not be handled: kept on a topic with the reason, and published again where an operator asks for it."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from kafka import KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import MessageSizeTooLargeError

from vesta_common.events import inbox
from vesta_common.events.broker import DELIVERY_TIMEOUT, Broker, close_producer, open_producer
from vesta_common.settings import ServiceSettings

REASON_HEADER = "dead_letter_reason"
TOPIC_HEADER = "dead_letter_topic"
POSITION_HEADER = "dead_letter_position"
OMITTED_HEADER = "dead_letter_omitted_bytes"
_OUR_HEADERS = {REASON_HEADER, TOPIC_HEADER, POSITION_HEADER, OMITTED_HEADER}
READ_PATIENCE = timedelta(seconds=3)
REASON_LENGTH_MAX = 2000
REPLAY_AGE_MAX = inbox.KEEP - timedelta(days=1)


def topic_of(service: str) -> str:
    """The topic of a consuming service's dead letters."""
    return f"vesta.{service}.dead_letter.v1"


@dataclass(frozen=True)
class DeadLetter:
    """A record that could not be handled.

    Attributes:
        topic: where it came from, with the prefix.
        position: its partition and offset there, `3:1024`.
        reason: why it could not be handled.
        time: when it was set aside.
        headers: those it had.
        omitted_bytes: of the value, where it was too large for the topic; such a letter tells what came, and cannot be replayed.
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
    """What a replay did.

    Attributes:
        published: letters published again.
        too_old: letters passed over, because consumers that did handle their event have forgotten that they did.
        without_value: letters passed over, because their value was too large to be kept.
    """

    published: int
    too_old: int
    without_value: int


def send(producer: KafkaProducer, topic: str, record: Any, reason: str) -> None:
    """Keeps a record among the dead letters; returns when the broker has it, without its value where that is too large for the topic.

    Raises:
        KafkaError: the broker does not have it; the record must not be passed over.
    """
    ours = [
        (REASON_HEADER, reason[:REASON_LENGTH_MAX].encode(errors="replace")),
        (TOPIC_HEADER, record.topic.encode()),
        (POSITION_HEADER, f"{record.partition}:{record.offset}".encode()),
    ]
    headers = [*_own_headers(record), *ours]
    value = record.value or b""  # kafka-python refuses a record that has neither key nor value; others publish such
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
    """All dead letters of a topic, partition by partition. Ends with the last, on the embedded broker three seconds later."""
    consumer = _open_reader(broker, topic, None)
    try:
        for record in _records(consumer, datetime.now(UTC), _ends(broker, consumer)):
            yield _letter(record)
    finally:
        consumer.close()


def replay(broker: Broker, topic: str, group: str) -> Replayed:
    """Publishes each dead letter once more where it came from, with its own event id.

    A letter's event was never recorded as handled, so that the inbox of the consumer that failed lets it through; those of others
    drop it. Letters that come while it runs, perhaps the same again, are left for the next time.

    Args:
        group: remembers what was replayed.

    Raises:
        KafkaError: the broker does not answer; what was published is remembered.
    """
    start, published, too_old, without_value = datetime.now(UTC), 0, 0, 0
    producer = open_producer(broker)
    consumer = _open_reader(broker, topic, group)
    try:
        for record in _records(consumer, start, _ends(broker, consumer)):
            letter = _letter(record)
            if start - letter.time > REPLAY_AGE_MAX:
                too_old += 1
            elif letter.omitted_bytes:
                without_value += 1
            elif letter.topic:  # else it is nothing that `send` has kept
                _send(producer, letter.topic, letter.value, letter.key, letter.headers)
                published += 1
            partition = TopicPartition(record.topic, record.partition)
            consumer.commit({partition: OffsetAndMetadata(record.offset + 1, "", -1)})
    finally:
        consumer.close()
        close_producer(producer)
    return Replayed(published, too_old, without_value)


def replay_command(service: str) -> Callable[[ServiceSettings], int]:
    """The command `replay-dead-letters` of a service."""

    def command(settings: ServiceSettings) -> int:
        topic = settings.kafka_topic_prefix + topic_of(service)
        done = replay(Broker.of(settings), topic, f"{topic}.replay")
        sys.stdout.write(f"{done.published} dead letters of {service} were published again\n")
        if done.too_old:
            sys.stdout.write(
                f"{done.too_old} are older than {REPLAY_AGE_MAX.days} days and cannot be: others may handle them twice\n"
            )
        if done.without_value:
            sys.stdout.write(f"{done.without_value} were too large to be kept whole and cannot be\n")
        return 0

    return command


def _open_reader(broker: Broker, topic: str, group: str | None) -> KafkaConsumer:
    """Reads all partitions, alone: from where the group was, or from the beginning."""
    consumer = KafkaConsumer(
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        **broker.consumer,
    )
    consumer.assign([TopicPartition(topic, number) for number in sorted(consumer.partitions_for_topic(topic) or ())])
    return consumer


def _ends(broker: Broker, consumer: KafkaConsumer) -> dict[TopicPartition, int]:
    """Where each partition ends by now; nothing where the broker cannot be asked, as the embedded one."""
    found: dict[TopicPartition, int] = consumer.end_offsets(consumer.assignment()) if broker.is_idempotent else {}
    return found


def _records(consumer: KafkaConsumer, until: datetime, ends: Mapping[TopicPartition, int]) -> Iterator[Any]:
    """Records up to the first of its partition that is later than a time.

    Ends where the partitions do; where that is not known, when none has come for a while.
    """
    deadline, ended = time.monotonic() + READ_PATIENCE.total_seconds(), set()
    while consumer.assignment() and time.monotonic() < deadline:
        if ends and all(consumer.position(partition) >= end for partition, end in ends.items()):
            return
        for partition, records in consumer.poll(timeout_ms=200).items():
            for record in records:
                if _time(record) > until:
                    ended.add(partition)
                if partition not in ended:
                    yield record
                    deadline = time.monotonic() + READ_PATIENCE.total_seconds()


def _letter(record: Any) -> DeadLetter:
    ours = {key: value.decode(errors="replace") for key, value in record.headers if key in _OUR_HEADERS}
    return DeadLetter(
        topic=ours.get(TOPIC_HEADER, ""),
        position=ours.get(POSITION_HEADER, ""),
        reason=ours.get(REASON_HEADER, ""),
        time=_time(record),
        key=record.key,
        value=record.value,
        headers=_own_headers(record),
        omitted_bytes=int(ours.get(OMITTED_HEADER, "0")),
    )


def _own_headers(record: Any) -> list[tuple[str, bytes]]:
    return [(key, value if value is not None else b"") for key, value in record.headers if key not in _OUR_HEADERS]


def _time(record: Any) -> datetime:
    return datetime.fromtimestamp(record.timestamp / 1000, UTC)
