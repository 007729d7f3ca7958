"""Membership of a Kafka consumer group: polling, pausing without leaving the group, committing, leaving.

kafka-python sends heartbeats on its own thread while a handler runs, but a rebalance of the group waits until every member polls. A member
that handles many records in a row therefore polls in between, with all partitions paused.

Back-pressure: the next poll starts after all polled records are delivered. The client's prefetch is bounded.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import structlog
from kafka import ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import IllegalStateError, KafkaError

from vesta_common.clock import Clock
from vesta_common.events.broker import open_consumer
from vesta_common.events.consumer import faults
from vesta_common.events.consumer.delivery import Stopping
from vesta_common.events.consumer.offsets import Offsets
from vesta_common.events.consumer.options import KafkaOptions
from vesta_common.events.consumer.unreadable import is_unreadable

HEARTBEAT_INTERVAL_MS = 1000  # a member learns of a rebalance from the response to a heartbeat
POLL_INTERVAL_MAX_MS = 300_000
PAUSED_POLL_INTERVAL = timedelta(seconds=1)
PAUSED_POLL_TIMEOUT_MS = 50
COMMIT_INTERVAL = timedelta(milliseconds=200)
COMMIT_TIMEOUT_MS = 2000
CLOSE_TIMEOUT_MS = 2000

log = structlog.get_logger()


class Membership:
    """A member of a consumer group, from joining to leaving. Not thread-safe.

    Args:
        group: the group id without prefix.
        topics: the topics without prefix.
        records_max: the maximum number of records per poll.
        stopping: set when the consumer is to stop; ends waits.

    Attributes:
        offsets: the delivered, uncommitted offsets and the lost partitions.

    Raises:
        KafkaError: the broker does not respond.
    """

    def __init__(
        self,
        options: KafkaOptions,
        group: str,
        topics: Sequence[str],
        records_max: int,
        clock: Clock,
        stopping: threading.Event,
    ) -> None:
        self.offsets = Offsets()
        self._broker = options.broker
        self._group = group
        self._clock = clock
        self._stopping = stopping
        self._commit_time = self._poll_time = clock.now()
        self._consumer = open_consumer(
            options.broker,
            group_id=options.topic_prefix + group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
            session_timeout_ms=int(options.session_timeout.total_seconds() * 1000),
            fetch_max_wait_ms=options.fetch_wait_ms,
            max_poll_records=records_max,
            max_poll_interval_ms=POLL_INTERVAL_MAX_MS,
            # Both use the eager rebalance protocol, which `offsets` expects.
            partition_assignment_strategy=(RangePartitionAssignor, RoundRobinPartitionAssignor),
        )
        self._consumer.subscribe(
            sorted({options.topic_prefix + topic for topic in topics}), listener=_Listener(self.offsets)
        )

    # Records.

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        """Returns the next records by assigned partition. Commits first if a commit is due, and returns when one will be.

        Raises:
            CorruptRecordError: a record cannot be read; call `skip_unreadable`, leave, and rejoin.
            KafkaError: leave, and rejoin.
        """
        self._commit_if_due()
        if self.offsets.uncommitted():
            timeout_ms = min(timeout_ms, int(COMMIT_INTERVAL / timedelta(milliseconds=1)))
        polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=timeout_ms)
        if not polled:
            self._resume_dropped_join()
        self._poll_time = self._clock.now()
        self.offsets.poll()
        return polled

    def _resume_dropped_join(self) -> None:
        if faults.resume_dropped_join(self._consumer):
            log.info("group_join_resumed", group=self._group)

    def waiting(self) -> int:
        """Returns the consumer lag: records of the assigned partitions after the current positions, as last reported by the broker."""
        try:
            return sum(self._waiting(partition) for partition in self._consumer.assignment())
        except (KafkaError, KeyError):  # a concurrent rebalance
            return 0

    def _waiting(self, partition: TopicPartition) -> int:
        highwater = self._consumer.highwater(partition)
        if not highwater:
            return 0
        position = self._consumer.position(partition, timeout_ms=0)
        return 0 if position is None else max(0, highwater - position)

    def wait(self, duration: timedelta) -> None:
        """Waits while staying in the group: polls with all partitions paused, at least once. Commits if a commit is due.

        Raises:
            Stopping: the consumer was asked to stop.
        """
        deadline = time.monotonic() + duration.total_seconds()
        while True:
            if self._stopping.is_set():
                raise Stopping
            self._poll_paused()
            self._commit_if_due()
            if time.monotonic() >= deadline:
                break
        for partition in self._consumer.paused():
            with suppress(KeyError, IllegalStateError):
                self._consumer.resume(partition)

    def poll_if_due(self) -> None:
        """Polls with all partitions paused if the last poll was a second ago, so that a rebalance does not wait for the current records.

        Raises:
            Stopping: the consumer was asked to stop.
        """
        if self._stopping.is_set():
            raise Stopping
        if _is_past(self._poll_time, PAUSED_POLL_INTERVAL, self._clock.now()):
            self.wait(timedelta(0))

    def _poll_paused(self) -> None:
        for partition in self._consumer.assignment():  # every time, because a rebalance may have added partitions
            with suppress(KeyError, IllegalStateError):
                self._consumer.pause(partition)
        for partition, records in self._consumer.poll(timeout_ms=PAUSED_POLL_TIMEOUT_MS).items():
            # A rebalance during this poll assigned the partition. Seek back, so that the records are read again.
            with suppress(KeyError, IllegalStateError):
                self._consumer.seek(partition, records[0].offset)
        self._resume_dropped_join()
        self._poll_time = self._clock.now()

    # Offsets.

    def _commit_if_due(self) -> None:
        if _is_past(self._commit_time, COMMIT_INTERVAL, self._clock.now()):
            self.commit()

    def commit(self) -> None:
        """Commits the next offset of each partition with progress. After a failure the next commit covers the offsets."""
        self._commit_time = self._clock.now()
        offsets = self.offsets.uncommitted()
        if not offsets:
            return
        try:
            self._commit(offsets)
        except KafkaError as error:
            log.info("commit_postponed", group=self._group, error=repr(error))
            return
        self.offsets.commit(offsets)

    def skip_unreadable(self) -> dict[TopicPartition, int]:
        """Commits the offset after each unreadable record that blocks a partition. Returns the skipped offsets.

        The client never returns the bytes of such records, so they cannot be stored as dead letters. Call it only after `poll` has raised
        CorruptRecordError and when all polled records are delivered.

        Raises:
            KafkaError: nothing was skipped.
        """
        self.commit()
        # kafka-python does not report the position of a corrupt record.
        positions = {partition: self._consumer.position(partition) for partition in self._consumer.assignment()}
        unreadable = {
            partition: offset
            for partition, offset in positions.items()
            if not self._stopping.is_set() and is_unreadable(self._broker, partition, offset)
        }
        if unreadable:
            self._commit({partition: offset + 1 for partition, offset in unreadable.items()})
        return unreadable

    def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        self._consumer.commit(
            {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()},
            timeout_ms=COMMIT_TIMEOUT_MS,
        )

    # Leaving.

    def leave(self) -> None:
        """Commits offsets and leaves the group. Returns within seconds, even if the broker does not respond."""
        with suppress(KafkaError, OSError):
            self.commit()
        with suppress(KafkaError, OSError):
            self._consumer.close(timeout_ms=CLOSE_TIMEOUT_MS)


def _is_past(time_before: datetime, interval: timedelta, now: datetime) -> bool:
    """Returns True if the interval has passed, or if the clock was set back, because that must not block commits or polls."""
    return not time_before <= now < time_before + interval


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Reports rebalances to the offsets. kafka-python calls it on its own thread, where commits are not possible."""

    def __init__(self, offsets: Offsets) -> None:
        self._offsets = offsets

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Called when a rebalance starts."""
        self._offsets.revoke(revoked)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """Called when a rebalance is complete."""
        self._offsets.assign(assigned)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """Called when the group has removed this member."""
        self._offsets.lose(lost)
