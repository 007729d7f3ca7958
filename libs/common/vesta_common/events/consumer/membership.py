"""One membership of a consumer group on Kafka: polls, rests without being taken for dead, commits, leaves.

Heartbeats go on by themselves while a handler works, on kafka-python's own thread; but a rebalance of the whole group waits until each
member polls. So a member that is busy with one record after another polls in between, with everything paused.

Back-pressure is that nothing is polled before all that was polled is delivered; what is read ahead meanwhile is bounded.
"""

import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import IllegalStateError, KafkaError

from vesta_common.clock import Clock
from vesta_common.events.consumer import faults
from vesta_common.events.consumer.delivery import Stopping
from vesta_common.events.consumer.offsets import Offsets
from vesta_common.events.consumer.options import KafkaOptions
from vesta_common.events.consumer.unreadable import is_unreadable

HEARTBEAT_INTERVAL_MS = 500  # with 2000 the laptop's broker assigns too late
POLL_INTERVAL_MAX_MS = 300_000
STAY_INTERVAL = timedelta(seconds=1)
STAY_TIMEOUT_MS = 50
COMMIT_INTERVAL = timedelta(milliseconds=200)
COMMIT_TIMEOUT_MS = 2000
CLOSE_TIMEOUT_MS = 2000

log = structlog.get_logger()


class Membership:
    """A member of a group, from joining to leaving. Used by one thread.

    Args:
        group: without its prefix.
        topics: without their prefix.
        records_max: how many records a poll answers at most.
        stopping: set when the consumer is to stop; ends rests.

    Attributes:
        offsets: what was delivered and not committed yet, and what was lost.

    Raises:
        KafkaError: the broker does not answer.
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
        self._consumer = KafkaConsumer(
            group_id=options.topic_prefix + group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=int(options.session_timeout.total_seconds() * 1000),
            heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
            fetch_max_wait_ms=options.fetch_wait_ms,
            max_poll_records=records_max,
            max_poll_interval_ms=POLL_INTERVAL_MAX_MS,
            # Both are eager, which is what `offsets` takes a rebalance for.
            partition_assignment_strategy=(RangePartitionAssignor, RoundRobinPartitionAssignor),
            **options.broker.consumer,
        )
        self._consumer.subscribe(
            sorted({options.topic_prefix + topic for topic in topics}), listener=_Listener(self.offsets)
        )

    # Records.

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        """The next records by partition, all of partitions that are ours. Commits what is due first.

        Raises:
            CorruptRecordError: a partition cannot be read on: `pass_over_unreadable`, leave, and join anew.
            KafkaError: leave, and join anew.
        """
        self._commit_if_due()
        polled: dict[TopicPartition, list[Any]] = self._consumer.poll(timeout_ms=timeout_ms)
        if not polled:
            self._mend()
        self._poll_time = self._clock.now()
        self.offsets.poll()
        return polled

    def _mend(self) -> None:
        if faults.resume_forgotten_join(self._consumer):
            log.info("join_resumed", group=self._group)

    def is_behind(self) -> bool:
        """Whether the broker said that it has records that it has not given yet. Only to be asked after a poll that brought none."""
        try:
            return any(self._is_behind(partition) for partition in self._consumer.assignment())
        except (KafkaError, KeyError):  # a rebalance came between
            return False

    def waiting(self) -> int:
        """How many records the broker has of partitions that are ours after those that polls brought, as far as it has told."""
        try:
            return sum(self._waiting(partition) for partition in self._consumer.assignment())
        except (KafkaError, KeyError):  # a rebalance came between
            return 0

    def _is_behind(self, partition: TopicPartition) -> bool:
        return self._waiting(partition) > 0

    def _waiting(self, partition: TopicPartition) -> int:
        highwater = self._consumer.highwater(partition)
        if not highwater:
            return 0
        position = self._consumer.position(partition, timeout_ms=0)
        return 0 if position is None else max(0, highwater - position)

    def rest(self, duration: timedelta) -> None:
        """Waits while staying in the group: polls with everything paused, at least once. Commits what is due.

        Raises:
            Stopping: the consumer is to stop.
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

    def stay(self) -> None:
        """A short rest where the last poll is a second ago, so that a rebalance need not wait for the records in hand.

        Raises:
            Stopping: the consumer is to stop.
        """
        if self._stopping.is_set():
            raise Stopping
        if _is_past(self._poll_time, STAY_INTERVAL, self._clock.now()):
            self.rest(timedelta(0))

    def _poll_paused(self) -> None:
        for partition in self._consumer.assignment():  # each time, for a rebalance may have brought new ones
            with suppress(KeyError, IllegalStateError):
                self._consumer.pause(partition)
        for partition, records in self._consumer.poll(timeout_ms=STAY_TIMEOUT_MS).items():
            # They came with a rebalance in the midst of this poll: read them again.
            with suppress(KeyError, IllegalStateError):
                self._consumer.seek(partition, records[0].offset)
        self._mend()
        self._poll_time = self._clock.now()

    # Offsets.

    def _commit_if_due(self) -> None:
        if _is_past(self._commit_time, COMMIT_INTERVAL, self._clock.now()):
            self.commit()

    def commit(self) -> None:
        """Commits the next offset of each partition that got on; what fails is committed with the next."""
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

    def pass_over_unreadable(self) -> dict[TopicPartition, int]:
        """Commits the offset after each record at which a partition cannot be read on; answers where they are.

        Their bytes never reach us, so that they cannot even be kept. Only to be called when `poll` has raised CorruptRecordError
        and nothing is in hand: what lies before the position must have been delivered.

        Raises:
            KafkaError: nothing was passed over.
        """
        self.commit()
        # kafka-python says that a record is corrupt, but not where.
        positions = {partition: self._consumer.position(partition) for partition in self._consumer.assignment()}
        found = {
            partition: offset
            for partition, offset in positions.items()
            if not self._stopping.is_set() and is_unreadable(self._broker, partition, offset)
        }
        if found:
            self._commit({partition: offset + 1 for partition, offset in found.items()})
        return found

    def _commit(self, offsets: dict[TopicPartition, int]) -> None:
        self._consumer.commit(
            {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in offsets.items()},
            timeout_ms=COMMIT_TIMEOUT_MS,
        )

    # The end.

    def leave(self) -> None:
        """Commits, and leaves the group, in some seconds at most; whether the broker answers or not."""
        with suppress(KafkaError, OSError):
            self.commit()
        if not self._broker.is_idempotent:
            faults.vanish(self._consumer)
        with suppress(KafkaError, OSError):
            self._consumer.close(timeout_ms=CLOSE_TIMEOUT_MS)


def _is_past(time_before: datetime, interval: timedelta, now: datetime) -> bool:
    """Whether the interval has passed; also where the clock was set back, which must not hold up anything."""
    return not time_before <= now < time_before + interval


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    """Tells the offsets of rebalances. kafka-python calls it on its own thread, on which nothing can be committed."""

    def __init__(self, offsets: Offsets) -> None:
        self._offsets = offsets

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """A rebalance begins."""
        self._offsets.revoke(revoked)

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        """It has ended."""
        self._offsets.assign(assigned)

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        """The group took us for dead."""
        self._offsets.lose(lost)
