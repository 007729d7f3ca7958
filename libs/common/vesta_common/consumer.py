"""Consumes events: each has its effect once, in order per key; what cannot be handled is set aside with the reason.

The contract of offsets: the offset committed is that of the next record, it is committed after the effects of all before it, and
so a kill repeats records, whose events the inbox drops. Transient failures are retried for ever while the group membership is kept;
permanent ones are retried a few times and then become dead letters; too many dead letters in a row stop the consumer and make it
unhealthy, for then the fault is ours.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError
from prometheus_client import CollectorRegistry, Counter, Gauge

from vesta_common import dead_letters, inbox, trace
from vesta_common.errors import InvalidArgument, VestaError, is_transient
from vesta_common.events import Event, decode
from vesta_common.postgres import Connection, Postgres

SESSION_TIMEOUT_MS = 6000
HEARTBEAT_INTERVAL_MS = 500
FETCH_MAX_WAIT_MS = 50
POLL_TIMEOUT_MS = 200
POLL_RECORDS_MAX = 200
POLL_INTERVAL_MAX_MS = 600_000
FETCH_BYTES_MAX = 16 * 1024 * 1024
COMMIT_INTERVAL = timedelta(milliseconds=200)
ATTEMPTS_MAX = 3
BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 5.0
DEAD_LETTERS_IN_A_ROW_MAX = 100

Handler = Callable[[Connection, Event], None]
"""Has the effect of one event, in the transaction given. Raising undoes it."""

log = structlog.get_logger()


@dataclass(frozen=True)
class KafkaOptions:
    """How to reach the broker."""

    bootstrap: str
    topic_prefix: str = ""


class ConsumerMetrics:
    """What a service's consumers did."""

    def __init__(self, service: str, registry: CollectorRegistry) -> None:
        labels = ("consumer",)
        self.handled = Counter(
            f"vesta_{service}_events_handled_total", "Events that had their effect", labels, registry=registry
        )
        self.dead = Counter(
            f"vesta_{service}_events_dead_total", "Events set aside as dead letters", labels, registry=registry
        )
        self.age = Gauge(
            f"vesta_{service}_event_age_seconds", "Age of the last event handled: the lag", labels, registry=registry
        )


class Consumer:
    """A member of a consumer group.

    Args:
        service: who consumes; names the dead-letter topic.
        name: names the group and the inbox's entries; one a purpose.
        handlers: by event type; events of other types on the same topics are passed over.
        records_max: how many events are handled in one transaction at most.
    """

    def __init__(
        self,
        service: str,
        name: str,
        handlers: Mapping[str, Handler],
        postgres: Postgres,
        kafka: KafkaOptions,
        metrics: ConsumerMetrics | None = None,
        records_max: int = POLL_RECORDS_MAX,
    ) -> None:
        self._service = service
        self._name = name
        self._handlers = dict(handlers)
        self._postgres = postgres
        self._kafka = kafka
        self._metrics = metrics or ConsumerMetrics(service, CollectorRegistry())
        self._records_max = records_max
        self._topics = sorted({kafka.topic_prefix + event_type.rpartition(".")[0] for event_type in handlers})
        self._stopping = threading.Event()
        self._dead_in_a_row = 0
        self._done: dict[TopicPartition, int] = {}
        self._commit_time = 0.0
        self._producer: KafkaProducer | None = None
        self._thread = threading.Thread(target=self._run, name=f"consumer-{name}", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self, timeout: timedelta) -> None:
        """Finishes the records in hand, commits, leaves the group."""
        self._stopping.set()
        if self._thread.ident:
            self._thread.join(timeout.total_seconds())

    def healthy(self) -> bool:
        """False where the thread has ended: too many dead letters in a row."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            consumer = None
            try:
                consumer = self._join()
                self._consume(consumer)
            except KafkaError as error:
                log.warning("consumer_interrupted", consumer=self._name, error=str(error))
                self._stopping.wait(BACKOFF_MAX_SECONDS / 5)
            except TooManyDeadLetters:
                log.exception("consumer_stopped", consumer=self._name)
                return
            finally:
                self._leave(consumer)

    def _join(self) -> KafkaConsumer:
        consumer = KafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap,
            group_id=f"{self._kafka.topic_prefix}{self._service}.{self._name}",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
            fetch_max_wait_ms=FETCH_MAX_WAIT_MS,
            max_poll_records=self._records_max,
            max_poll_interval_ms=POLL_INTERVAL_MAX_MS,
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
        )
        self._done.clear()
        consumer.subscribe(self._topics, listener=_CommitBeforeRevoke(lambda: self._commit(consumer)))
        return consumer

    def _consume(self, consumer: KafkaConsumer) -> None:
        while not self._stopping.is_set():
            for partition, records in consumer.poll(timeout_ms=POLL_TIMEOUT_MS).items():
                self._handle_all(consumer, partition, records)
            if time.monotonic() - self._commit_time > COMMIT_INTERVAL.total_seconds():
                self._commit(consumer)
        self._commit(consumer)

    def _handle_all(self, consumer: KafkaConsumer, partition: TopicPartition, records: Sequence[Any]) -> None:
        """Handles records in one transaction; where that fails, one by one, so that the one at fault shows."""
        events = [self._event_of(record) for record in records]
        wanted = [event for event in events if isinstance(event, Event)]
        poison = any(isinstance(event, str) for event in events)
        if len(records) == 1 or poison or not self._handled_together(wanted):
            for record in records:
                if self._stopping.is_set():
                    return
                self._handle_one(consumer, record)
                self._done[partition] = record.offset + 1
            return
        self._done[partition] = records[-1].offset + 1

    def _handled_together(self, events: Sequence[Event]) -> bool:
        try:
            self._effect(events)
        except Exception as error:  # noqa: BLE001 - they are tried one by one, where errors are told apart
            log.debug("batch_failed", consumer=self._name, error=str(error))
            return False
        return True

    def _handle_one(self, consumer: KafkaConsumer, record: Any) -> None:
        """Handles one record, however long that takes, or sets it aside."""
        event = self._event_of(record)
        if event is None:
            return
        if isinstance(event, str):
            self._set_aside(record, event)
            return
        attempt, permanent = 0, 0
        while not self._stopping.is_set():
            attempt += 1
            try:
                self._effect([event])
            except Exception as error:
                if not is_transient(error):
                    permanent += 1
                    if permanent == ATTEMPTS_MAX:
                        log.exception("event_dead", consumer=self._name, event_id=event.id, type=event.type)
                        reason = error.reason if isinstance(error, VestaError) else type(error).__name__
                        self._set_aside(record, f"{reason}: {error}")
                        return
                else:
                    log.warning(
                        "event_postponed", consumer=self._name, event_id=event.id, attempt=attempt, error=str(error)
                    )
                self._rest(consumer, min(BACKOFF_FIRST_SECONDS * 2 ** min(attempt, 12), BACKOFF_MAX_SECONDS))
            else:
                self._dead_in_a_row = 0
                return
        raise KafkaError("stopping before the record was handled")

    def _effect(self, events: Sequence[Event]) -> None:
        """The effects of events that were not handled before, in one transaction."""
        if not events:
            return

        def work(connection: Connection) -> None:
            new = inbox.new_among(connection, self._name, [event.id for event in events])
            for event in events:
                if event.id in new:
                    new.discard(event.id)
                    with trace.span(event.type, event.carrier):
                        self._handlers[event.type](connection, event)

        self._postgres.run(work)
        self._metrics.handled.labels(self._name).inc(len(events))
        self._metrics.age.labels(self._name).set((datetime.now(UTC) - events[-1].time).total_seconds())

    def _event_of(self, record: Any) -> Event | str | None:
        """The record's event; None where it is not for us; the reason where it is poison."""
        types = [value for key, value in record.headers if key == "ce_type"]
        if types and types[0].decode(errors="replace") not in self._handlers:
            return None
        try:
            return decode(record.headers, record.value)
        except InvalidArgument as error:
            return f"{error.reason}: {error}"

    def _set_aside(self, record: Any, reason: str) -> None:
        if self._producer is None:
            self._producer = KafkaProducer(
                bootstrap_servers=self._kafka.bootstrap, acks="all", enable_idempotence=False
            )
        dead_letters.send(
            self._producer, self._kafka.topic_prefix + dead_letters.topic_of(self._service), record, reason
        )
        self._metrics.dead.labels(self._name).inc()
        log.warning("dead_letter", consumer=self._name, topic=record.topic, offset=record.offset, reason=reason)
        self._dead_in_a_row += 1
        if self._dead_in_a_row >= DEAD_LETTERS_IN_A_ROW_MAX:
            raise TooManyDeadLetters(f"{self._dead_in_a_row} dead letters in a row; the last one: {reason}")

    def _rest(self, consumer: KafkaConsumer, seconds: float) -> None:
        """Waits while staying in the group: polls with everything paused."""
        partitions = consumer.assignment()
        consumer.pause(*partitions)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not self._stopping.is_set():
            consumer.poll(timeout_ms=50)
        consumer.resume(*consumer.paused())

    def _commit(self, consumer: KafkaConsumer) -> None:
        """Commits the next offset of each partition that got on."""
        self._commit_time = time.monotonic()
        if not self._done:
            return
        offsets = {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in self._done.items()}
        consumer.commit(offsets)
        self._done.clear()

    def _leave(self, consumer: KafkaConsumer | None) -> None:
        if consumer is None:
            return
        try:
            self._commit(consumer)
        except KafkaError as error:
            log.info("commit_skipped", consumer=self._name, error=str(error))
        consumer.close()
        if self._producer is not None:
            self._producer.close(timeout=1)
            self._producer = None


class TooManyDeadLetters(Exception):  # noqa: N818 - it says what happened
    """So many records in a row could not be handled that the fault must be ours."""


class _CommitBeforeRevoke(ConsumerRebalanceListener):  # type: ignore[misc]
    """Commits what is done before partitions go to another member."""

    def __init__(self, commit: Callable[[], None]) -> None:
        self._commit = commit

    def on_partitions_revoked(self, revoked: Any) -> None:  # noqa: ARG002 - kafka-python's signature
        try:
            self._commit()
        except KafkaError as error:
            log.info("commit_skipped", error=str(error))

    def on_partitions_assigned(self, assigned: Any) -> None:
        """Nothing to prepare."""
