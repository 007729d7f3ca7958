"""What happened in a project since an event: read again from Kafka, so that a watcher goes on at any replica, also one that just started.

An event's id is a ULID and tells when it was made; its topics are read from a little before that to where the tail is. So a watcher
misses nothing, and may be told some events again, which it knows by their ids.
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
"""How long before the event reading begins: topics are apart from one another by the time that a relay takes."""
EVENTS_MAX = 10_000
TIMEOUT = timedelta(seconds=30)
POLL_TIMEOUT_MS = 500

Ends = Callable[[], Mapping[TopicPartition, int]]
"""Answers the offsets up to which events are not published any more to those who watch from now on."""

log = structlog.get_logger()


def time_of(event_id: str, now: datetime) -> datetime:
    """When an event was made, by its id.

    Raises:
        InvalidArgument: the id is none of an event's.
        FailedPrecondition: EVENTS_TOO_OLD, what has happened since cannot be told.
    """
    try:
        found = ULID.from_str(event_id.upper()).datetime.astimezone(UTC)
    except ValueError as error:
        raise InvalidArgument(
            f"{event_id[:64]!r} is no event's id; send the id of the last event that was read",
            reason="EVENT_ID_MALFORMED",
        ) from error
    if now - found > AGE_MAX:
        raise FailedPrecondition(
            f"what happened since {found.isoformat(timespec='seconds')} is told for {AGE_MAX} alone; read anew what you show, and "
            "watch without an id",
            reason="EVENTS_TOO_OLD",
        )
    return found


class Replay:
    """Reads a project's events again.

    Args:
        ends: up to where.
        to_event: the project and the event of a record; raises InvalidArgument for others.
        events_max: how many are answered at most.
        timeout: how long reading may take.
    """

    def __init__(
        self,
        kafka: KafkaOptions,
        consumer_of: Callable[[KafkaOptions], KafkaConsumer],
        ends: Ends,
        to_event: Callable[..., tuple[str, ProjectEvent]],
        *,
        events_max: int = EVENTS_MAX,
        timeout: timedelta = TIMEOUT,
    ) -> None:
        self._kafka = kafka
        self._consumer_of = consumer_of
        self._ends = ends
        self._to_event = to_event
        self._events_max = events_max
        self._timeout = timeout

    def read(self, project: str, since: datetime) -> list[ProjectEvent]:
        """The events of a project since a time, in the order of their ids. It blocks.

        Raises:
            FailedPrecondition: EVENTS_TOO_MANY.
            Unavailable: the broker does not answer in time.
        """
        ends = self._ends()
        deadline = time.monotonic() + self._timeout.total_seconds()
        found: dict[str, ProjectEvent] = {}
        with closing(self._consumer_of(self._kafka)) as consumer:
            for event in self._events(consumer, project, ends, since - OVERLAP, deadline):
                found[event.id] = event
                if len(found) > self._events_max:
                    raise FailedPrecondition(
                        f"more than {self._events_max} events have happened since; read anew what you show, and watch without an id",
                        reason="EVENTS_TOO_MANY",
                    )
        return sorted(found.values(), key=lambda event: event.id)

    def _events(
        self,
        consumer: KafkaConsumer,
        project: str,
        ends: Mapping[TopicPartition, int],
        since: datetime,
        deadline: float,
    ) -> Iterator[ProjectEvent]:
        since_ms = int(since.timestamp() * 1000)
        starts = {
            partition: answer.offset
            for partition, answer in consumer.offsets_for_times(dict.fromkeys(ends, since_ms)).items()
            if answer is not None and answer.timestamp >= 0
        }
        left = {partition for partition, start in starts.items() if start < ends[partition]}
        consumer.assign(list(left))
        for partition in left:
            consumer.seek(partition, starts[partition])
        while left:
            if time.monotonic() > deadline:
                raise Unavailable("events cannot be read again just now; watch again in a moment", reason="EVENTS_AWAY")
            for partition, records in consumer.poll(POLL_TIMEOUT_MS).items():
                for record in records:
                    if (event := self._of_project(record, project)) is not None:
                        yield event
                if records[-1].offset + 1 >= ends[partition]:
                    left.discard(partition)

    def _of_project(self, record: object, project: str) -> ProjectEvent | None:
        key = (getattr(record, "key", None) or b"").decode(errors="replace")
        if not key.startswith(f"{project}/") and key != project:
            return None
        try:
            return self._to_event(record)[1]
        except (InvalidArgument, UnicodeDecodeError) as error:
            log.warning("event_passed_over", error=str(error))
            return None
