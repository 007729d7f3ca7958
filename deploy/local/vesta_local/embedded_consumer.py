"""The Kafka consumer of the laptop's services: kafka-python's, adapted to the embedded broker.

The services load it by their setting KAFKA_CONSUMER_CLASS. The embedded broker differs from Apache Kafka in these ways:

* It reads records only within the wait of a fetch. If reading takes longer, because a partition is large or the machine is busy, it returns
  nothing, and so does every retry. The consumer therefore doubles the wait until records arrive.
* It responds only at the middle and at the end of the wait. A short wait gives a low latency, but many requests while nothing happens, and
  each costs about 6 ms of processor time here, in the broker and in the object store. An idle consumer therefore waits longer.
* With heartbeats at an interval of two seconds or more, it assigns partitions late. Each heartbeat is written to the object store.
* If the leader of a group leaves during a join, for example because two members leave at once, it elects no new leader and never assigns
  partitions in that group again. Members therefore leave silently: the group removes them after their session timeout.
* It returns wrong end offsets, and cannot seek to the end. The responses to fetches state the right ones.
"""

import time
from collections.abc import Callable, Iterable
from contextlib import closing
from datetime import timedelta
from typing import Any

import structlog
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, KafkaTimeoutError

STARVED_AFTER = timedelta(seconds=1)  # in addition to two fetches
FETCH_WAIT_MS_MAX = 5000
IDLE_AFTER = timedelta(seconds=5)
IDLE_FETCH_WAIT_MS = 1000  # of an idle consumer, which therefore receives a record at most half a second late
LONG_IDLE_AFTER = timedelta(seconds=20)
LONG_IDLE_FETCH_WAIT_MS = 2000  # at most a second late
IDLE_POLL_MS = 500
ENDS_TIMEOUT = timedelta(seconds=30)
AGES = tuple(timedelta(seconds=2**exponent) for exponent in range(26))  # up to two years

log = structlog.get_logger()


class FetchWait:
    """The fetch wait, which doubles while the broker has records and returns none.

    Args:
        ms: the initial wait.
        now: a monotonic clock, in seconds.

    Attributes:
        ms: the wait of the next fetch.
    """

    def __init__(self, ms: int, now: Callable[[], float] = time.monotonic) -> None:
        self.ms = ms
        self._now = now
        self._empty_since: float | None = None

    def record_poll(self, is_empty: bool, is_behind: Callable[[], bool]) -> bool:
        """Records the result of a poll. Returns True if polls returned nothing for one second plus two fetches although records exist;
        `ms` was doubled then.

        Args:
            is_behind: reports whether the broker has records that it has not returned.
        """
        now = self._now()
        if not is_empty:
            self._empty_since = None
        elif self._empty_since is None:
            self._empty_since = now
        elif now - self._empty_since >= STARVED_AFTER.total_seconds() + 2 * self.ms / 1000:
            self._empty_since = now
            if self.ms < FETCH_WAIT_MS_MAX and is_behind():
                self.ms = min(2 * self.ms, FETCH_WAIT_MS_MAX)
                return True
        return False


def _idle_fetch_wait_ms(idle_seconds: float) -> int:
    """Returns the minimum fetch wait of a consumer that has received nothing for some time."""
    if idle_seconds > LONG_IDLE_AFTER.total_seconds():
        return LONG_IDLE_FETCH_WAIT_MS
    return IDLE_FETCH_WAIT_MS if idle_seconds > IDLE_AFTER.total_seconds() else 0


class EmbeddedBrokerConsumer(KafkaConsumer):  # type: ignore[misc]
    """A consumer of the embedded broker, with the interface and the options of `kafka.KafkaConsumer`."""

    def __init__(self, *topics: str, **configs: Any) -> None:
        super().__init__(*topics, **configs)
        self._configs = configs
        self._fetch_wait = FetchWait(self.config["fetch_max_wait_ms"])
        self._last_record_time = time.monotonic()

    def poll(self, timeout_ms: float = 0, *args: Any, **options: Any) -> dict[TopicPartition, list[Any]]:
        """Returns the next records by partition. A poll of an idle consumer may last for `IDLE_POLL_MS`."""
        idle_seconds = time.monotonic() - self._last_record_time
        is_idle = idle_seconds > IDLE_AFTER.total_seconds()
        self._fetcher.config["fetch_max_wait_ms"] = max(self._fetch_wait.ms, _idle_fetch_wait_ms(idle_seconds))
        polled: dict[TopicPartition, list[Any]] = super().poll(
            max(timeout_ms, IDLE_POLL_MS) if is_idle else timeout_ms, *args, **options
        )
        if polled:
            self._last_record_time = time.monotonic()
        if self._fetch_wait.record_poll(not polled, self._is_behind):
            log.warning("fetch_wait_doubled", group=self.config["group_id"], milliseconds=self._fetch_wait.ms)
        return polled

    def end_offsets(
        self, partitions: Iterable[TopicPartition], timeout_ms: float | None = None
    ) -> dict[TopicPartition, int]:
        """Returns the end offset of each partition, as a fetch near the end reports it.

        Raises:
            KafkaTimeoutError: the broker does not report all of them in time.
        """
        near_ends = dict.fromkeys(partitions, 0)
        deadline = time.monotonic() + (ENDS_TIMEOUT.total_seconds() if timeout_ms is None else timeout_ms / 1000)
        options = {**self._configs, "group_id": None, "auto_offset_reset": "earliest"}
        with closing(EmbeddedBrokerConsumer(**options)) as probe:
            probe.assign(list(near_ends))
            for partition, offset in self._near_ends(near_ends).items():
                probe.seek(partition, offset)
            while any(probe.highwater(partition) is None for partition in near_ends):
                if time.monotonic() >= deadline:
                    raise KafkaTimeoutError("the broker did not report the end offsets of all partitions in time")
                probe.poll(self._fetch_wait.ms)
            return {partition: probe.highwater(partition) for partition in near_ends}

    def _near_ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Returns the offset of the oldest record of the shortest age that has one; 0 for a partition without records."""
        offsets = dict.fromkeys(partitions, 0)
        unknown, now_ms = set(offsets), int(time.time() * 1000)
        for age in AGES:
            if not unknown:
                break
            since_ms = now_ms - int(age.total_seconds() * 1000)
            for partition, answer in self.offsets_for_times(dict.fromkeys(unknown, since_ms)).items():
                if answer is not None and answer.timestamp >= 0:
                    offsets[partition] = answer.offset
                    unknown.discard(partition)
        return offsets

    def close(self, *args: Any, **options: Any) -> None:
        """Closes the consumer without a LeaveGroup request."""
        self._coordinator.coordinator_id = None  # a member without a coordinator sends no LeaveGroup request
        super().close(*args, **options)

    def _is_behind(self) -> bool:
        """Returns True if the broker has reported records that it has not returned. Call it only after an empty poll."""
        try:
            return any(self._is_before_end(partition) for partition in self.assignment() - self.paused())
        except (KafkaError, KeyError):  # a concurrent rebalance
            return False

    def _is_before_end(self, partition: TopicPartition) -> bool:
        position = self.position(partition, timeout_ms=0)
        return position is not None and (self.highwater(partition) or 0) > position
