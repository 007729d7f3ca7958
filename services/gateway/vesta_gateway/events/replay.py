"""Replays the events of a project from Kafka after a given event, so that a watcher can resume at any replica.

An event id is a ULID, which contains its creation time. The topics are read from shortly before that time up to the position of the tail. A
watcher therefore misses no events. It may receive some events again, which it recognises by their ids.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta

import structlog
from kafka import KafkaConsumer, TopicPartition
from ulid import ULID
from vesta_common.errors import FailedPrecondition, InvalidArgument, Unavailable
from vesta_common.events.consumer import KafkaOptions
from vesta_contracts.gateway.v1 import ProjectEvent

AGE_MAX = timedelta(hours=1)
OVERLAP = timedelta(seconds=5)
"""How long before the event the replay begins, because relays publish with different delays on different topics."""
EVENTS_MAX = 10_000
TIMEOUT = timedelta(seconds=30)
POLL_TIMEOUT_MS = 500

EndOffsets = Callable[[], Mapping[TopicPartition, int]]
"""Returns the offsets where the replay ends: later events reach watchers through the tail."""

log = structlog.get_logger()


def time_of(event_id: str, now: datetime) -> datetime:
    """Returns the creation time of an event from its id.

    Raises:
        InvalidArgument: EVENT_ID_MALFORMED.
        FailedPrecondition: EVENTS_TOO_OLD, the event is older than the replay limit.
    """
    try:
        time = ULID.from_str(event_id.upper()).datetime.astimezone(UTC)
    except ValueError as error:
        raise InvalidArgument(
            f"{event_id[:64]!r} is not an event id; send the id of the last received event",
            reason="EVENT_ID_MALFORMED",
        ) from error
    if now - time > AGE_MAX:
        raise FailedPrecondition(
            f"events since {time.isoformat(timespec='seconds')} are not available, they are "
            f"replayed for {AGE_MAX} only; reload the resources, and watch without an id",
            reason="EVENTS_TOO_OLD",
        )
    return time


class Replay:
    """Reads past events of a project.

    Args:
        end_offsets: returns the end offsets.
        to_event: returns the project and the event of a record; raises InvalidArgument for other records.
        events_max: maximum number of events.
        timeout: maximum duration of a replay.
    """

    def __init__(
        self,
        kafka: KafkaOptions,
        consumer_of: Callable[[KafkaOptions], KafkaConsumer],
        end_offsets: EndOffsets,
        to_event: Callable[..., tuple[str, ProjectEvent]],
        *,
        events_max: int = EVENTS_MAX,
        timeout: timedelta = TIMEOUT,
    ) -> None:
        self._kafka = kafka
        self._consumer_of = consumer_of
        self._end_offsets = end_offsets
        self._to_event = to_event
        self._events_max = events_max
        self._timeout = timeout

    def read(self, project: str, since: datetime) -> list[ProjectEvent]:
        """Returns the events of a project since a time, in the order of their ids. Blocks.

        Raises:
            FailedPrecondition: EVENTS_TOO_MANY.
            Unavailable: EVENTS_UNAVAILABLE, the broker does not respond in time.
        """
        end_offsets = self._end_offsets()
        deadline = time.monotonic() + self._timeout.total_seconds()
        events: dict[str, ProjectEvent] = {}
        with closing(self._consumer_of(self._kafka)) as consumer:
            for event in self._events(consumer, project, end_offsets, since - OVERLAP, deadline):
                events[event.id] = event
                if len(events) > self._events_max:
                    raise FailedPrecondition(
                        f"more than {self._events_max} events followed this one; reload the resources, and "
                        "watch without an id",
                        reason="EVENTS_TOO_MANY",
                    )
        return sorted(events.values(), key=lambda event: event.id)

    def _events(
        self,
        consumer: KafkaConsumer,
        project: str,
        end_offsets: Mapping[TopicPartition, int],
        since: datetime,
        deadline: float,
    ) -> Iterator[ProjectEvent]:
        since_ms = int(since.timestamp() * 1000)
        starts = {
            partition: found_offset.offset
            for partition, found_offset in consumer.offsets_for_times(dict.fromkeys(end_offsets, since_ms)).items()
            if found_offset is not None and found_offset.timestamp >= 0
        }
        remaining = {partition for partition, start in starts.items() if start < end_offsets[partition]}
        consumer.assign(list(remaining))
        for partition in remaining:
            consumer.seek(partition, starts[partition])
        while remaining:
            if time.monotonic() > deadline:
                raise Unavailable("past events are currently not available; retry later", reason="EVENTS_UNAVAILABLE")
            for partition, records in consumer.poll(POLL_TIMEOUT_MS).items():
                for record in records:
                    if (event := self._of_project(record, project)) is not None:
                        yield event
                if records[-1].offset + 1 >= end_offsets[partition]:
                    remaining.discard(partition)

    def _of_project(self, record: object, project: str) -> ProjectEvent | None:
        key = (getattr(record, "key", None) or b"").decode(errors="replace")
        if not key.startswith(f"{project}/") and key != project:
            return None
        try:
            return self._to_event(record)[1]
        except (InvalidArgument, UnicodeDecodeError) as error:
            log.warning("event_skipped", error=str(error))
            return None
