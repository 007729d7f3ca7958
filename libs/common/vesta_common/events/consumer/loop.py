"""The consumer thread: polls, delivers and commits. Rejoins the group after broker outages."""

from collections.abc import Mapping
from datetime import timedelta

import structlog
from kafka.errors import CorruptRecordError, KafkaError
from prometheus_client import CollectorRegistry

from vesta_common.clock import Clock, SystemClock
from vesta_common.events import dead_letters
from vesta_common.events.cloudevents import topic_of
from vesta_common.events.consumer.dead_letter_topic import DeadLetterTopic
from vesta_common.events.consumer.delivery import Delivery, Stopping
from vesta_common.events.consumer.handlers import BatchHandler, Handler, Handlers, Preparation
from vesta_common.events.consumer.membership import Membership
from vesta_common.events.consumer.metrics import ConsumerMetrics
from vesta_common.events.consumer.options import KafkaOptions
from vesta_common.events.consumer.records import Check, Reader
from vesta_common.events.consumer.retries import DEAD_LETTERS_MAX, CircuitBreaker, TooManyDeadLetters
from vesta_common.service_thread import NO_PAUSE, ServiceThread
from vesta_common.storage.postgres import Postgres

POLL_RECORDS_MAX = 200
POLL_TIMEOUT_MS = 500  # a poll returns as soon as there are records; idle ones cost about 1 ms of processor time each
BACKOFF_MAX = timedelta(seconds=1)

log = structlog.get_logger()


class Consumer(ServiceThread):
    """A member of a Kafka consumer group that delivers events to handlers.

    When it stops, it completes the current transaction, commits offsets, and leaves the group. It is unhealthy once it has stopped because
    of too many dead letters.

    Args:
        service: the consuming service; determines the dead-letter topic.
        name: the consumer's name, unique per purpose; part of the group id and the key of inbox entries.
        handlers: handlers by event type. Events of other types on the same topics are skipped.
        records_max: the maximum number of events per transaction.
        batch_handlers: handlers by event type for events that are cheaper to handle in batches.
        preparations: preparations by event type for events that need calls to other services first. A type may be in one mapping only.
        check: raises InvalidArgument for events that their publisher is not allowed to send. Such events become dead letters immediately.
        dead_letters_max: the number of failed events within ten minutes after which the consumer stops.
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
        check: Check | None = None,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(f"consumer-{name}", (KafkaError, OSError), BACKOFF_MAX)
        metrics = metrics or ConsumerMetrics(service, CollectorRegistry())
        self._name = name
        self._group = f"{service}.{name}"
        self._kafka = kafka
        self._records_max = records_max
        self._clock = clock or SystemClock()
        self._handlers = Handlers(
            name, postgres, self._clock, metrics, handlers, batch_handlers or {}, preparations or {}
        )
        self._reader = Reader(self._handlers.types, check)
        self._topics = sorted({topic_of(event_type) for event_type in self._handlers.types})
        self._dead_letters_topic = dead_letters.topic_of(service)
        self._dead_letters = DeadLetterTopic(kafka.broker, kafka.topic_prefix + self._dead_letters_topic, name, metrics)
        self._dead = metrics.dead.labels(name)
        self._waiting = metrics.waiting.labels(name)
        self._circuit_breaker = CircuitBreaker(self._clock, dead_letters_max)

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics the consumer reads and its dead-letter topic, without prefix."""
        return (*self._topics, self._dead_letters_topic)

    def _step(self) -> timedelta:
        membership = Membership(self._kafka, self._group, self._topics, self._records_max, self._clock, self._stopping)
        try:
            self._consume(membership)
        except Stopping:
            pass
        except TooManyDeadLetters:
            log.exception("consumer_stopped", consumer=self._name)
            self._stopping.set()
        finally:
            self._waiting.set(0)  # the partitions are reassigned, possibly to this member
            membership.leave()
            self._dead_letters.close()
        return NO_PAUSE

    def _consume(self, membership: Membership) -> None:
        delivery = Delivery(
            self._name,
            membership,
            self._reader.read,
            self._handlers.handle,
            self._dead_letters.keep,
            self._circuit_breaker,
        )
        while not self._stopping.is_set():
            try:
                polled = membership.poll(POLL_TIMEOUT_MS)
            except CorruptRecordError:
                self._skip_unreadable(membership)
                raise  # the consumer of kafka-python is unusable after this error
            self._waiting.set(membership.waiting())
            for partition, records in polled.items():
                delivery.deliver(partition, records)
                membership.poll_if_due()

    def _skip_unreadable(self, membership: Membership) -> None:
        for partition, offset in membership.skip_unreadable().items():
            self._dead.inc()
            log.error("record_unreadable", consumer=self._name, topic=partition.topic, offset=offset)
