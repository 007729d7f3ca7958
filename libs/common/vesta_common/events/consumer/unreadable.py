"""Detects unreadable records: opens a separate consumer at a given offset of a partition and reads one record."""

from kafka import TopicPartition
from kafka.errors import CorruptRecordError

from vesta_common.events.broker import Broker, open_consumer

PROBE_TIMEOUT_MS = 5000


def is_unreadable(broker: Broker, partition: TopicPartition, offset: int) -> bool:
    """Returns True if kafka-python cannot read the record at this offset. Returns False if there is no record yet.

    Raises:
        KafkaError: the broker does not respond.
    """
    probe = open_consumer(broker)  # the same options as the consumer that failed, so it reads the same bytes
    try:
        probe.assign([partition])
        probe.seek(partition, offset)
        probe.poll(timeout_ms=PROBE_TIMEOUT_MS, max_records=1)
    except CorruptRecordError:
        return True
    finally:
        probe.close()
    return False
