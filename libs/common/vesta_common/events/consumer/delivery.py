"""Delivers records in order: each record is handled, skipped, or stored as a dead letter with the reason.

A batch of records is handled in one transaction. If that fails, the records are handled one by one to isolate the failing record.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Protocol

import structlog
from kafka import TopicPartition
from kafka.errors import KafkaError

from vesta_common.errors import VestaError, is_transient
from vesta_common.events.cloudevents import Event
from vesta_common.events.consumer.offsets import Offsets
from vesta_common.events.consumer.records import InvalidRecord, describe
from vesta_common.events.consumer.retries import Attempts, CircuitBreaker

STORE_BACKOFF = timedelta(seconds=1)

log = structlog.get_logger()


class Stopping(Exception):
    """The consumer was asked to stop before the current record was delivered."""


class _PartitionLost(Exception):
    """The partition of the current record was reassigned to another member, which delivers the record."""


class Group(Protocol):
    """The operations of a consumer group that delivery needs."""

    @property
    def offsets(self) -> Offsets:
        """Records delivered offsets and reports lost partitions."""
        ...

    def wait(self, duration: timedelta) -> None:
        """Waits while staying in the group. Partitions may be reassigned meanwhile.

        Raises:
            Stopping: the consumer was asked to stop.
        """
        ...

    def poll_if_due(self) -> None:
        """Polls between two records, if a poll is due, so that the member stays in the group. Partitions may be reassigned meanwhile.

        Raises:
            Stopping: the consumer was asked to stop.
        """
        ...


class Delivery:
    """Delivers the records of one group membership.

    Args:
        name: the consumer's name, for logs.
        read: returns the event of a record, or None if the record is not relevant. Raises InvalidRecord.
        handle: handles all events or none. An error may or may not recur in the next attempt.
        keep: stores a record as a dead letter. Raises KafkaError if that fails.
    """

    def __init__(
        self,
        name: str,
        group: Group,
        read: Callable[[Any], Event | None],
        handle: Callable[[Sequence[Event]], None],
        keep: Callable[[Any, str], None],
        circuit_breaker: CircuitBreaker,
    ) -> None:
        self._name = name
        self._group = group
        self._read = read
        self._handle = handle
        self._keep = keep
        self._circuit_breaker = circuit_breaker

    def deliver(self, partition: TopicPartition, records: Sequence[Any]) -> None:
        """Delivers the records of one partition, however long it takes. Discards the remaining records if the partition is lost.

        Raises:
            Stopping: the consumer was asked to stop; the offsets reflect the delivered records.
            TooManyDeadLetters: the circuit breaker has opened; the offsets reflect the delivered records.
        """
        if self._group.offsets.is_lost(partition):
            return
        if len(records) > 1 and self._handle_batch(records):
            self._group.offsets.deliver(partition, records[-1].offset + 1)
            return
        try:
            for record in records:
                self._deliver_one(partition, record)
                self._poll_if_due(partition)
        except _PartitionLost:
            log.info(
                "records_left_to_another", consumer=self._name, topic=partition.topic, partition=partition.partition
            )

    def _handle_batch(self, records: Sequence[Any]) -> bool:
        try:
            events = [self._read(record) for record in records]
            self._handle([event for event in events if event is not None])
        except Exception as error:  # noqa: BLE001 - the records are retried one by one, which classifies errors
            log.debug("batch_failed", consumer=self._name, error=str(error))
            return False
        return True

    def _deliver_one(self, partition: TopicPartition, record: Any) -> None:
        given_up = self._try(partition, record)
        self._group.offsets.deliver(partition, record.offset + 1)
        if given_up:
            self._circuit_breaker.count(given_up)

    def _try(self, partition: TopicPartition, record: Any) -> str:
        """Retries until the record is handled or stored as a dead letter. Returns the reason of a failed handler, else an empty string."""
        attempts = Attempts()
        while True:
            try:
                event = self._read(record)
                if event is not None:
                    self._handle([event])
            except InvalidRecord as invalid:
                self._store_dead_letter(partition, record, str(invalid))
                return ""
            except Exception as error:
                pause = attempts.fail(error)
                if pause is None:
                    log.exception("event_dead_lettered", consumer=self._name, **describe(record))
                    reason = error.reason if isinstance(error, VestaError) else type(error).__name__
                    self._store_dead_letter(partition, record, f"{reason}: {error}")
                    return reason
                if is_transient(error):
                    log.warning(
                        "event_postponed",
                        consumer=self._name,
                        attempt=attempts.count,
                        error=str(error),
                        **describe(record),
                    )
                self._wait(partition, pause)
            else:
                return ""

    def _store_dead_letter(self, partition: TopicPartition, record: Any, reason: str) -> None:
        """Stores the record as a dead letter. Retries indefinitely, because a record must not be skipped before it is stored."""
        while True:
            try:
                self._keep(record, reason)
            except KafkaError as error:
                log.warning("dead_letter_postponed", consumer=self._name, error=repr(error))
                self._wait(partition, STORE_BACKOFF)
            else:
                log.warning("dead_letter", consumer=self._name, reason=reason, **describe(record))
                return

    def _wait(self, partition: TopicPartition, duration: timedelta) -> None:
        self._group.wait(duration)
        if self._group.offsets.is_lost(partition):
            raise _PartitionLost

    def _poll_if_due(self, partition: TopicPartition) -> None:
        self._group.poll_if_due()
        if self._group.offsets.is_lost(partition):
            raise _PartitionLost
