"""Brings each record to its end, in order: it has its effect, is passed over, or is kept as a dead letter with the reason.

Records are handled together, in one transaction. Where that fails they are handled one by one, so that the one at fault shows.
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
from vesta_common.events.consumer.records import Poison, describe
from vesta_common.events.consumer.retries import Attempts, Fuse

KEEP_BACKOFF = timedelta(seconds=1)

log = structlog.get_logger()


class Stopping(Exception):
    """The consumer is to stop before the record in hand was delivered."""


class _Lost(Exception):
    """The partition of the record in hand went to another member, who delivers it."""


class Group(Protocol):
    """What delivering needs of the consumer group."""

    @property
    def offsets(self) -> Offsets:
        """Where to say what was delivered, and to ask what was lost."""
        ...

    def rest(self, duration: timedelta) -> None:
        """Waits while staying in the group; partitions may be lost meanwhile.

        Raises:
            Stopping: the consumer is to stop.
        """
        ...

    def stay(self) -> None:
        """Shows the group between two records that we are there, if it is time to; partitions may be lost meanwhile.

        Raises:
            Stopping: the consumer is to stop.
        """
        ...


class Delivery:
    """Delivers records of one membership.

    Args:
        name: the consumer's, for the log.
        read: answers the record's event, or None where it is not for us. Raises Poison.
        handle: has the effects of events, all or none. What it raises may be raised again by the next attempt, or not.
        keep: keeps a record among the dead letters. Raises KafkaError where it could not.
    """

    def __init__(
        self,
        name: str,
        group: Group,
        read: Callable[[Any], Event | None],
        handle: Callable[[Sequence[Event]], None],
        keep: Callable[[Any, str], None],
        fuse: Fuse,
    ) -> None:
        self._name = name
        self._group = group
        self._read = read
        self._handle = handle
        self._keep = keep
        self._fuse = fuse

    def deliver(self, partition: TopicPartition, records: Sequence[Any]) -> None:
        """Delivers records of one partition, however long that takes, or drops the rest of them where the partition is lost.

        Raises:
            Stopping: the consumer is to stop; the offsets tell how far it got.
            TooManyDeadLetters: too much was given up; the offsets are right in this case too.
        """
        if self._group.offsets.is_lost(partition):
            return
        if len(records) > 1 and self._handled_together(records):
            self._group.offsets.deliver(partition, records[-1].offset + 1)
            return
        try:
            for record in records:
                self._deliver_one(partition, record)
                self._show(partition)
        except _Lost:
            log.info(
                "records_left_to_another", consumer=self._name, topic=partition.topic, partition=partition.partition
            )

    def _handled_together(self, records: Sequence[Any]) -> bool:
        try:
            found = [self._read(record) for record in records]
            self._handle([event for event in found if event is not None])
        except Exception as error:  # noqa: BLE001 - they are tried one by one, where errors are told apart
            log.debug("batch_failed", consumer=self._name, error=str(error))
            return False
        return True

    def _deliver_one(self, partition: TopicPartition, record: Any) -> None:
        given_up = self._try(partition, record)
        self._group.offsets.deliver(partition, record.offset + 1)
        if given_up:
            self._fuse.count(given_up)

    def _try(self, partition: TopicPartition, record: Any) -> str:
        """Tries until the record is handled or set aside; answers why it was given up, nothing where the fault is not ours."""
        attempts = Attempts()
        while True:
            try:
                event = self._read(record)
                if event is not None:
                    self._handle([event])
            except Poison as poison:
                self._set_aside(partition, record, str(poison))
                return ""
            except Exception as error:
                pause = attempts.fail(error)
                if pause is None:
                    log.exception("event_dead", consumer=self._name, **describe(record))
                    reason = error.reason if isinstance(error, VestaError) else type(error).__name__
                    self._set_aside(partition, record, f"{reason}: {error}")
                    return reason
                if is_transient(error):
                    log.warning(
                        "event_postponed",
                        consumer=self._name,
                        attempt=attempts.count,
                        error=str(error),
                        **describe(record),
                    )
                self._rest(partition, pause)
            else:
                return ""

    def _set_aside(self, partition: TopicPartition, record: Any, reason: str) -> None:
        """Keeps the record among the dead letters, however long that takes: it must not be passed over before it is kept."""
        while True:
            try:
                self._keep(record, reason)
            except KafkaError as error:
                log.warning("dead_letter_postponed", consumer=self._name, error=repr(error))
                self._rest(partition, KEEP_BACKOFF)
            else:
                log.warning("dead_letter", consumer=self._name, reason=reason, **describe(record))
                return

    def _rest(self, partition: TopicPartition, duration: timedelta) -> None:
        self._group.rest(duration)
        if self._group.offsets.is_lost(partition):
            raise _Lost

    def _show(self, partition: TopicPartition) -> None:
        self._group.stay()
        if self._group.offsets.is_lost(partition):
            raise _Lost
