"""Finds the record at which a partition cannot be read on, by reading the partition from there by itself."""

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import CorruptRecordError

from vesta_common.events.broker import Broker

PROBE_TIMEOUT_MS = 5000


def is_unreadable(broker: Broker, partition: TopicPartition, offset: int) -> bool:
    """Whether the partition's record at this offset is one that kafka-python cannot read; false where there is none yet.

    Raises:
        KafkaError: the broker does not answer.
    """
    probe = KafkaConsumer(**broker.consumer)  # which reads the same bytes as the consumer that failed
    try:
        probe.assign([partition])
        probe.seek(partition, offset)
        probe.poll(timeout_ms=PROBE_TIMEOUT_MS, max_records=1)
    except CorruptRecordError:
        return True
    finally:
        probe.close()
    return False
