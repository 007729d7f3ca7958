"""Consumes events: each has its effect once, in order per key; what cannot be handled is set aside with the reason.

The contract of offsets: the offset committed is that of the next record, it is committed after the effects of all before it, and
so a kill repeats records, whose events the inbox drops. Transient failures are retried for ever while the group membership is
kept; permanent ones are retried a few times and then become dead letters; too many dead letters in a while stop the consumer and
make it unhealthy, for then the fault is ours. Records that are no events become dead letters too, but are not our fault.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, OffsetAndMetadata, TopicPartition
from kafka.errors import CorruptRecordError, IllegalStateError, KafkaError
from prometheus_client import CollectorRegistry, Counter, Gauge

from vesta_common import dead_letters, inbox, trace
from vesta_common.broker import CONNECTION, close_producer, open_producer
from vesta_common.errors import InvalidArgument, VestaError, is_transient
from vesta_common.events import Event, decode, topic_of
from vesta_common.postgres import Connection, Postgres
from vesta_common.settings import ServiceSettings

SESSION_TIMEOUT = timedelta(seconds=6)
HEARTBEAT_INTERVAL_MS = 500
FETCH_WAIT_MS = 50
POLL_TIMEOUT_MS = 200
QUIET_AFTER = timedelta(seconds=5)
QUIET_INTERVAL = timedelta(milliseconds=250)
POLL_RECORDS_MAX = 200
POLL_INTERVAL_MAX_MS = 300_000
FETCH_BYTES_MAX = 16 * 1024 * 1024
COMMIT_INTERVAL = timedelta(milliseconds=200)
COMMIT_TIMEOUT_MS = 2000
CLOSE_TIMEOUT_MS = 2000
PROBE_TIMEOUT_MS = 5000
ATTEMPTS_MAX = 3
BACKOFF_FIRST_SECONDS = 0.1
BACKOFF_MAX_SECONDS = 5.0
REJOIN_BACKOFF_SECONDS = 1.0
DEAD_LETTERS_MAX = 100
DEAD_LETTERS_WINDOW = timedelta(minutes=10)

Handler = Callable[[Connection, Event], None]
"""Has the effect of one event, in the transaction given. Raising undoes it."""

BatchHandler = Callable[[Connection, Sequence[Event]], None]
"""Has the effects of events of one type that came one after another, in order, in the transaction given."""

Preparation = Callable[[Sequence[Event]], BatchHandler]
"""Asks others about events of one type, before the transaction, which is to be short; answers what then has the effects."""

log = structlog.get_logger()


@dataclass(frozen=True)
class KafkaOptions:
    """How to reach the broker.

    Attributes:
        topic_prefix: put before every topic and group.
        fetch_wait_ms: how long the broker may hold back the answer that there is nothing yet.
        quiet_after: when nothing has come for so long, the broker is asked four times a second at most.
        session_timeout: after which a member that is silent is taken for dead; brokers want at least six seconds.
    """

    bootstrap: str
    topic_prefix: str = ""
    session_timeout: timedelta = SESSION_TIMEOUT
    fetch_wait_ms: int = FETCH_WAIT_MS
    quiet_after: timedelta = QUIET_AFTER

    @classmethod
    def of(cls, settings: ServiceSettings) -> "KafkaOptions":
        """The broker that the settings name."""
        return cls(settings.kafka_bootstrap, settings.kafka_topic_prefix, fetch_wait_ms=settings.kafka_fetch_wait_ms)


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
        batch_handlers: by event type, for those whose events are cheaper together; no type is in both.
        preparations: by event type, for those that must ask others first; no type is in two of the three.
        check: raises InvalidArgument for an event that others had no right to send: a dead letter at once, no fault of ours.
        dead_letters_max: how many events may fail within ten minutes before the consumer stops.
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
        batch_handlers: Mapping[str, BatchHandler] | None = None,
        dead_letters_max: int = DEAD_LETTERS_MAX,
        preparations: Mapping[str, Preparation] | None = None,
        check: Callable[[Event], None] | None = None,
    ) -> None:
        self._service = service
        self._name = name
        self._handlers = {event_type: _one_by_one(handler) for event_type, handler in handlers.items()}
        self._handlers |= {event_type: _in_one_span(handler) for event_type, handler in (batch_handlers or {}).items()}
        self._preparations = {event_type: _in_span(ask) for event_type, ask in (preparations or {}).items()}
        self._check = check or _believe
        self._postgres = postgres
        self._kafka = kafka
        self._metrics = metrics or ConsumerMetrics(service, CollectorRegistry())
        self._records_max = records_max
        self._types = self._handlers.keys() | self._preparations.keys()
        self._topics = sorted({kafka.topic_prefix + topic_of(event_type) for event_type in self._types})
        self._stopping = threading.Event()
        self._dead_times: deque[float] = deque(maxlen=dead_letters_max)
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
        """False where the thread has ended: too many dead letters in a while."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            consumer = None
            try:
                consumer = self._join()
                self._consume(consumer)
            except _Stopping:
                pass
            except TooManyDeadLetters:
                log.exception("consumer_stopped", consumer=self._name)
                return
            except (KafkaError, OSError) as error:
                log.warning("consumer_interrupted", consumer=self._name, error=repr(error))
            except Exception:
                log.exception("consumer_failed", consumer=self._name)
            finally:
                self._leave(consumer)
            self._stopping.wait(REJOIN_BACKOFF_SECONDS)

    def _join(self) -> KafkaConsumer:
        consumer = KafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap,
            group_id=f"{self._kafka.topic_prefix}{self._service}.{self._name}",
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            session_timeout_ms=int(self._kafka.session_timeout.total_seconds() * 1000),
            heartbeat_interval_ms=HEARTBEAT_INTERVAL_MS,
            fetch_max_wait_ms=self._kafka.fetch_wait_ms,
            max_poll_records=self._records_max,
            max_poll_interval_ms=POLL_INTERVAL_MAX_MS,
            max_partition_fetch_bytes=FETCH_BYTES_MAX,
            **CONNECTION,
        )
        self._done.clear()
        consumer.subscribe(self._topics, listener=_ForgetRevoked(self._done))
        return consumer

    def _consume(self, consumer: KafkaConsumer) -> None:
        last_time = time.monotonic()
        while not self._stopping.is_set():
            is_quiet = time.monotonic() - last_time > self._kafka.quiet_after.total_seconds()
            polled = self._poll(consumer, self._kafka.fetch_wait_ms if is_quiet else POLL_TIMEOUT_MS)
            for partition, records in polled.items():
                self._handle_all(consumer, partition, records)
            if time.monotonic() - self._commit_time > COMMIT_INTERVAL.total_seconds():
                self._commit(consumer)
            if polled:
                last_time = time.monotonic()
            elif is_quiet:
                # A broker that is asked often, because it answers late, is asked less often while nothing comes.
                self._stopping.wait(max(0.0, QUIET_INTERVAL.total_seconds() - self._kafka.fetch_wait_ms / 1000))

    def _poll(self, consumer: KafkaConsumer, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        try:
            polled: dict[TopicPartition, list[Any]] = consumer.poll(timeout_ms=timeout_ms)
        except CorruptRecordError:
            self._skip_unreadable(consumer)
            raise  # after which kafka-python's consumer must not be used again
        return polled

    # Effects.

    def _handle_all(self, consumer: KafkaConsumer, partition: TopicPartition, records: Sequence[Any]) -> None:
        """Handles records in one transaction; where that fails, one by one, so that the one at fault shows."""
        found = [self._event_of(record) for record in records]
        events = [event for event in found if isinstance(event, Event)]
        poison = any(isinstance(event, str) for event in found)
        if poison or (len(events) > 1 and not self._handled_together(events)) or len(events) == 1:
            for record, event in zip(records, found, strict=True):
                self._handle_one(consumer, record, event)
                self._done[partition] = record.offset + 1
        self._done[partition] = records[-1].offset + 1

    def _handled_together(self, events: Sequence[Event]) -> bool:
        try:
            self._effect(events)
        except Exception as error:  # noqa: BLE001 - they are tried one by one, where errors are told apart
            log.debug("batch_failed", consumer=self._name, error=str(error))
            return False
        return True

    def _handle_one(self, consumer: KafkaConsumer, record: Any, event: Event | str | None) -> None:
        """Handles one record, however long that takes, or sets it aside.

        Raises:
            _Stopping: it was not handled, as the consumer is to stop.
            TooManyDeadLetters: it was set aside, and it was one too many.
        """
        if isinstance(event, str):
            self._set_aside(consumer, record, event)
        if not isinstance(event, Event):
            return
        attempt, permanent = 0, 0
        while True:
            try:
                self._effect([event])
            except Exception as error:
                attempt += 1
                if is_transient(error):
                    log.warning("event_postponed", **self._about(event), attempt=attempt, error=str(error))
                else:
                    permanent += 1
                    if permanent == ATTEMPTS_MAX:
                        log.exception("event_dead", **self._about(event))
                        reason = error.reason if isinstance(error, VestaError) else type(error).__name__
                        self._set_aside(consumer, record, f"{reason}: {error}")
                        self._count_dead(reason)
                        return
                self._rest(consumer, min(BACKOFF_FIRST_SECONDS * 2 ** min(attempt, 12), BACKOFF_MAX_SECONDS))
            else:
                return

    def _about(self, event: Event) -> dict[str, str]:
        return {"consumer": self._name, "event_id": event.id, "type": event.type, "subject": event.subject}

    def _effect(self, events: Sequence[Event]) -> None:
        """The effects of events that were not handled before, in one transaction."""
        handlers = self._handlers | self._prepared(events)

        def work(connection: Connection) -> None:
            new = inbox.new_among(connection, self._name, [event.id for event in events])
            fresh = list({event.id: event for event in events if event.id in new}.values())
            for event_type, run in groupby(fresh, key=lambda event: event.type):
                handlers[event_type](connection, list(run))

        self._postgres.run(work)
        self._metrics.handled.labels(self._name).inc(len(events))
        self._metrics.age.labels(self._name).set(max(0.0, (datetime.now(UTC) - events[-1].time).total_seconds()))

    def _prepared(self, events: Sequence[Event]) -> dict[str, BatchHandler]:
        """What has the effects of events about which others are asked first."""
        found = {}
        for event_type, ask in self._preparations.items():
            asked = [event for event in events if event.type == event_type]
            if asked:
                found[event_type] = _in_one_span(ask(asked))
        return found

    def _event_of(self, record: Any) -> Event | str | None:
        """The record's event; None where it is not for us; the reason where it is poison."""
        kind = next((value for key, value in record.headers if key == "ce_type" and value), None)
        if kind is not None and kind.decode(errors="replace") not in self._types:
            return None
        try:
            event = decode(record.headers, record.value, record.key)
            self._check(event)
        except InvalidArgument as error:
            return f"{error.reason}: {error}"
        return event

    # Dead letters.

    def _set_aside(self, consumer: KafkaConsumer, record: Any, reason: str) -> None:
        """Keeps the record among the dead letters, however long that takes: it must not be passed over before it is kept."""
        topic = self._kafka.topic_prefix + dead_letters.topic_of(self._service)
        while True:
            try:
                if self._producer is None:
                    self._producer = open_producer(self._kafka.bootstrap)
                dead_letters.send(self._producer, topic, record, reason)
                break
            except KafkaError as error:
                log.warning("dead_letter_postponed", consumer=self._name, topic=topic, error=repr(error))
                self._rest(consumer, REJOIN_BACKOFF_SECONDS)
        self._metrics.dead.labels(self._name).inc()
        log.warning("dead_letter", consumer=self._name, topic=record.topic, offset=record.offset, reason=reason)

    def _count_dead(self, reason: str) -> None:
        now = time.monotonic()
        self._dead_times.append(now)
        full = len(self._dead_times) == self._dead_times.maxlen
        if full and now - self._dead_times[0] < DEAD_LETTERS_WINDOW.total_seconds():
            raise TooManyDeadLetters(f"{len(self._dead_times)} events could not be handled; the last one: {reason}")

    def _skip_unreadable(self, consumer: KafkaConsumer) -> None:
        """Passes over the record at which a partition cannot be read on; its bytes cannot even be kept."""
        self._commit(consumer)
        for partition in consumer.assignment():
            offset = consumer.position(partition)
            if self._is_unreadable(partition, offset):
                consumer.commit({partition: OffsetAndMetadata(offset + 1, "", -1)}, timeout_ms=COMMIT_TIMEOUT_MS)
                self._metrics.dead.labels(self._name).inc()
                log.error("record_unreadable", consumer=self._name, topic=partition.topic, offset=offset)

    def _is_unreadable(self, partition: TopicPartition, offset: int) -> bool:
        probe = KafkaConsumer(
            bootstrap_servers=self._kafka.bootstrap, max_partition_fetch_bytes=FETCH_BYTES_MAX, **CONNECTION
        )
        try:
            probe.assign([partition])
            probe.seek(partition, offset)
            probe.poll(timeout_ms=PROBE_TIMEOUT_MS, max_records=1)
        except CorruptRecordError:
            return True
        finally:
            probe.close()
        return False

    # The group.

    def _rest(self, consumer: KafkaConsumer, seconds: float) -> None:
        """Waits while staying in the group: polls with everything paused.

        Raises:
            _Stopping: the consumer is to stop.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._stopping.is_set():
                raise _Stopping
            for partition in consumer.assignment():  # each time, for a rebalance may have brought new ones
                with suppress(KeyError, IllegalStateError):
                    consumer.pause(partition)
            for partition, records in consumer.poll(timeout_ms=50).items():
                with suppress(
                    KeyError, IllegalStateError
                ):  # came with a rebalance in the midst of this poll: read it again
                    consumer.seek(partition, records[0].offset)
        for partition in consumer.paused():
            with suppress(KeyError, IllegalStateError):
                consumer.resume(partition)

    def _commit(self, consumer: KafkaConsumer) -> None:
        """Commits the next offset of each partition that got on; what fails is committed with the next."""
        self._commit_time = time.monotonic()
        done = dict(self._done)
        if not done:
            return
        try:
            offsets = {partition: OffsetAndMetadata(offset, "", -1) for partition, offset in done.items()}
            consumer.commit(offsets, timeout_ms=COMMIT_TIMEOUT_MS)
        except KafkaError as error:
            log.info("commit_postponed", consumer=self._name, error=repr(error))
            return
        for partition, offset in done.items():
            if self._done.get(partition) == offset:
                self._done.pop(partition, None)

    def _leave(self, consumer: KafkaConsumer | None) -> None:
        if consumer is not None:
            with suppress(KafkaError, OSError):
                self._commit(consumer)
                consumer.close(timeout_ms=CLOSE_TIMEOUT_MS)
        producer, self._producer = self._producer, None
        if producer is not None:
            close_producer(producer)


class TooManyDeadLetters(Exception):
    """So many events could not be handled that the fault must be ours."""


class _Stopping(Exception):
    """The consumer is to stop before the record in hand was handled."""


def _believe(event: Event) -> None:
    """No check."""


def _one_by_one(handler: Handler) -> BatchHandler:
    def handle(connection: Connection, events: Sequence[Event]) -> None:
        for event in events:
            with trace.span(event.type, event.carrier):
                handler(connection, event)

    return handle


def _in_one_span(handler: BatchHandler) -> BatchHandler:
    def handle(connection: Connection, events: Sequence[Event]) -> None:
        with trace.span(events[0].type, events[0].carrier):
            handler(connection, events)

    return handle


def _in_span(ask: Preparation) -> Preparation:
    def prepare(events: Sequence[Event]) -> BatchHandler:
        with trace.span(events[0].type, events[0].carrier):
            return ask(events)

    return prepare


class _ForgetRevoked(ConsumerRebalanceListener):  # type: ignore[misc]
    """Drops what is not committed yet of partitions that go to another member: it repeats them, and the inbox drops them.

    kafka-python calls it on its own thread, on which nothing can be committed.
    """

    def __init__(self, done: dict[TopicPartition, int]) -> None:
        self._done = done

    def on_partitions_revoked(self, revoked: Any) -> None:
        for partition in revoked:
            self._done.pop(partition, None)

    def on_partitions_lost(self, lost: Any) -> None:
        self.on_partitions_revoked(lost)

    def on_partitions_assigned(self, assigned: Any) -> None:
        """Nothing to prepare."""
