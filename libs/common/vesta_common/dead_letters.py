"""Records that could not be handled: kept on a topic with the reason, and published again where an operator asks for it."""

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from kafka import KafkaConsumer, KafkaProducer

from vesta_common.settings import ServiceSettings

REASON_HEADER = "dead_letter_reason"
TOPIC_HEADER = "dead_letter_topic"
POSITION_HEADER = "dead_letter_position"
_OUR_HEADERS = {REASON_HEADER, TOPIC_HEADER, POSITION_HEADER}
READ_PATIENCE = timedelta(seconds=5)
REASON_LENGTH_MAX = 2000


def topic_of(service: str) -> str:
    """The topic of a consuming service's dead letters."""
    return f"vesta.{service}.dead_letter.v1"


@dataclass(frozen=True)
class DeadLetter:
    """A record that could not be handled, and why."""

    topic: str
    position: str
    reason: str
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def send(producer: KafkaProducer, topic: str, record: Any, reason: str) -> None:
    """Keeps a record among the dead letters; returns when the broker has it.

    Raises:
        KafkaError: the broker does not have it; the record must not be passed over.
    """
    ours = [
        (REASON_HEADER, reason[:REASON_LENGTH_MAX].encode()),
        (TOPIC_HEADER, record.topic.encode()),
        (POSITION_HEADER, f"{record.partition}:{record.offset}".encode()),
    ]
    headers = [entry for entry in record.headers if entry[0] not in _OUR_HEADERS]
    producer.send(topic, value=record.value, key=record.key, headers=[*headers, *ours]).get(timeout=20)


def read(bootstrap: str, topic: str, group: str | None = None) -> Iterator[tuple[DeadLetter, KafkaConsumer]]:
    """The dead letters that a group has not taken yet; all of them without a group. Ends when none has come for a while."""
    consumer = KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
    )
    try:
        deadline = time.monotonic() + READ_PATIENCE.total_seconds() + (6 if group else 0)
        while time.monotonic() < deadline:
            for records in consumer.poll(timeout_ms=500).values():
                for record in records:
                    deadline = time.monotonic() + READ_PATIENCE.total_seconds()
                    yield _letter(record), consumer
    finally:
        consumer.close()


def _letter(record: Any) -> DeadLetter:
    ours = {key: value.decode() for key, value in record.headers if key in _OUR_HEADERS}
    return DeadLetter(
        topic=ours.get(TOPIC_HEADER, ""),
        position=ours.get(POSITION_HEADER, ""),
        reason=ours.get(REASON_HEADER, ""),
        key=record.key,
        value=record.value,
        headers=[entry for entry in record.headers if entry[0] not in _OUR_HEADERS],
    )


def replay(bootstrap: str, topic: str, group: str) -> int:
    """Publishes each dead letter once more where it came from, with its own event id; answers how many.

    A letter's event was never recorded as handled, so that the inbox lets it through. The group remembers what was replayed.
    """
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=False)
    count = 0
    try:
        for letter, consumer in read(bootstrap, topic, group):
            producer.send(letter.topic, value=letter.value, key=letter.key, headers=letter.headers).get(timeout=20)
            consumer.commit()
            count += 1
    finally:
        producer.close()
    return count


def replay_command(service: str) -> Any:
    """The command `replay-dead-letters` of a service."""

    def command(settings: ServiceSettings) -> int:
        topic = settings.kafka_topic_prefix + topic_of(service)
        count = replay(settings.kafka_bootstrap, topic, f"{topic}.replay")
        sys.stdout.write(f"{count} dead letters of {service} were published again\n")
        return 0

    return command
