"""The transactional outbox: an event is committed together with the change that it describes, and a relay publishes it afterwards.

Order: the events of a resource are published in the order of its changes, because a transaction publishes while it holds the row lock
of the resource. A later change gets higher ids and becomes visible after the earlier one. There is no order between resources. The relay
skips nothing, because it has no cursor: it deletes rows after the broker has acknowledged them. An event may be published twice with the
same id, and is never lost. One relay per schema holds an advisory lock and publishes; the others are on standby.
"""

import json
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError
from prometheus_client import CollectorRegistry, Gauge

from vesta_common.errors import InvalidArgument
from vesta_common.events import inbox
from vesta_common.events.broker import Broker, close_producer, open_producer
from vesta_common.events.cloudevents import Event, attributes_of
from vesta_common.resources import idempotency
from vesta_common.service_thread import NO_PAUSE, ServiceThread
from vesta_common.storage.postgres import Connection, Postgres

BATCH_ROWS = 500
EVENT_BYTES_MAX = 64 * 1024
POLL_INTERVAL = timedelta(seconds=1)
STOP_TIMEOUT = timedelta(seconds=3)
WAIT_SECONDS = 0.5
TOPIC_BACKOFF = timedelta(seconds=5)
PRUNE_INTERVAL = timedelta(hours=1)
RELAY_LOCK = 7_305_002
BACKOFF_MAX = timedelta(seconds=1)
CHANNEL_SUFFIX = "_outbox"

log = structlog.get_logger()

MEASURE_INTERVAL = timedelta(seconds=5)
COUNTED_MAX = 10_000

_MEASURE = """
SELECT (SELECT count(*) FROM (SELECT FROM outbox LIMIT %s) AS waiting) AS waiting,
       (SELECT headers FROM outbox ORDER BY id LIMIT 1) AS oldest
"""
_ADD = """
WITH added AS (
    INSERT INTO outbox (topic, key, headers, value)
    SELECT topic, key, headers, value
    FROM unnest(%(topics)b::text[], %(keys)b::text[], %(headers)b::text[]::jsonb[], %(values)b::bytea[])
        WITH ORDINALITY AS event (topic, key, headers, value, place)
    ORDER BY place
)
SELECT pg_notify(current_schema() || %(suffix)s, '')
"""
_CLAIM = """
SELECT id, topic, key, headers, value FROM outbox
WHERE topic <> ALL(%s) ORDER BY id LIMIT %s
"""


def publish(connection: Connection, *events: Event) -> None:
    """Adds events to the caller's transaction, which holds the lock of the changed row. The relay publishes them after the commit.

    Raises:
        InvalidArgument: EVENT_TOO_LARGE, an event exceeds the limit.
    """
    if not events:
        return
    connection.execute(
        _ADD,
        {
            "topics": [event.topic for event in events],
            "keys": [event.subject for event in events],
            "headers": [_headers(event) for event in events],
            "values": [_value(event) for event in events],
            "suffix": CHANNEL_SUFFIX,
        },
    )


def _headers(event: Event) -> str:
    return json.dumps([*attributes_of(event).items()])


def _value(event: Event) -> bytes:
    value = event.value
    if len(value) > EVENT_BYTES_MAX:
        raise InvalidArgument(
            f"the event {event.type} has {len(value)} bytes, the maximum is {EVENT_BYTES_MAX}; "
            "store large values in the object store",
            reason="EVENT_TOO_LARGE",
            metadata={"type": event.type, "subject": event.subject},
        )
    return value


class Relay(ServiceThread):
    """Publishes the outbox of one schema. Every replica may run a relay; one relay at a time publishes.

    The active relay also deletes expired entries of the inbox and of the request log once per hour. When it stops, it publishes the
    remaining events first. An unreachable broker does not make the service unhealthy.

    Args:
        broker: the Kafka cluster to publish to.
        topic_prefix: prefix of all topics.
    """

    def __init__(self, postgres: Postgres, broker: Broker, topic_prefix: str = "") -> None:
        super().__init__("outbox-relay", (KafkaError, OSError), BACKOFF_MAX)
        self._postgres = postgres
        self._broker = broker
        self._topic_prefix = topic_prefix
        self._producer: KafkaProducer | None = None
        self._retry_times: dict[str, float] = {}  # topic → time of the next attempt, on the monotonic clock
        self._topic_errors: dict[str, str] = {}  # topic → the broker's error, until it accepts an event again
        self._measure_time = float("-inf")
        self._waiting: Gauge | None = None
        self._age: Gauge | None = None

    def measure(self, service: str, registry: CollectorRegistry) -> None:
        """Registers gauges for unpublished events. A standby relay reports 0."""
        self._waiting = Gauge(
            f"vesta_{service}_outbox_events",
            "Unpublished events in the outbox, counted up to 10,000",
            registry=registry,
        )
        self._age = Gauge(
            f"vesta_{service}_outbox_age_seconds", "Age of the oldest unpublished event", registry=registry
        )

    def problems(self) -> list[str]:
        """Returns a message for each topic whose events the broker rejects."""
        return [
            f"Kafka rejects events of the topic {topic} ({error}); check the permissions of the "
            "Kafka user and the free disk space of the brokers. The events stay in the outbox"
            for topic, error in sorted(self._topic_errors.copy().items())
        ]

    def _step(self) -> timedelta:
        try:
            with self._postgres.connect(autocommit=True) as connection:
                self._lead(connection)
        finally:
            self._topic_errors = {}  # another replica may become the active relay
            self._close_producer()
        return NO_PAUSE

    def _lead(self, connection: Connection) -> None:
        """Waits for the advisory lock, then publishes rows until the relay is stopped or a connection fails."""
        while not self._is_leader(connection):
            self._set_gauges(0, 0.0)
            if self._stopping.wait(POLL_INTERVAL.total_seconds()):
                return
        connection.execute(f'LISTEN "{self._postgres.schema}{CHANNEL_SUFFIX}"'.encode())
        prune_time = 0.0
        while True:
            self._measure(connection)
            published = self.publish_batch(connection)
            if self._stopping.is_set() and published < BATCH_ROWS:
                return
            if time.monotonic() > prune_time:
                prune_time = time.monotonic() + PRUNE_INTERVAL.total_seconds()
                self._prune(connection)
            if not published:
                self._await_rows(connection)

    def _measure(self, connection: Connection) -> None:
        if self._waiting is None or time.monotonic() < self._measure_time:
            return
        self._measure_time = time.monotonic() + MEASURE_INTERVAL.total_seconds()
        row = connection.execute(_MEASURE, (COUNTED_MAX,)).fetchone() or {}
        headers = dict(row["oldest"] or ())
        since = datetime.fromisoformat(headers["ce_time"]) if "ce_time" in headers else None
        self._set_gauges(row["waiting"], (datetime.now(UTC) - since).total_seconds() if since else 0.0)

    def _set_gauges(self, waiting: int, age_seconds: float) -> None:
        if self._waiting is not None and self._age is not None:
            self._waiting.set(waiting)
            self._age.set(max(0.0, age_seconds))

    def _await_rows(self, connection: Connection) -> None:
        """Waits for a notification about new rows, at most `POLL_INTERVAL`."""
        for _ in connection.notifies(timeout=POLL_INTERVAL.total_seconds(), stop_after=1):
            pass

    def _is_leader(self, connection: Connection) -> bool:
        row = connection.execute(
            "SELECT pg_try_advisory_lock(%s, hashtext(%s)) AS held", (RELAY_LOCK, self._postgres.schema)
        ).fetchone()
        return bool(row and row["held"])

    def publish_batch(self, connection: Connection) -> int:
        """Publishes and deletes the oldest rows. Returns their number. A topic that rejects events does not block others.

        Raises:
            KafkaError: the broker does not respond; nothing was deleted.
        """
        rows = connection.execute(_CLAIM, (self._topics_in_backoff(), BATCH_ROWS)).fetchall()
        if not rows:
            return 0
        acknowledged = self._send(rows)
        connection.execute("DELETE FROM outbox WHERE id = ANY(%s)", (acknowledged,))
        return len(acknowledged)

    def _send(self, rows: Sequence[dict[str, Any]]) -> list[int]:
        """Returns the ids of the acknowledged rows. If one event of a topic fails, no row of that topic is returned, to preserve the order.

        Raises:
            KafkaError: the relay was stopped before the broker responded.
        """
        producer = self._open_producer()
        waiting: list[tuple[dict[str, Any], Any]] = []
        failed: dict[str, str] = {}
        for row in rows:
            if row["topic"] not in failed:
                try:
                    waiting.append((row, self._send_one(producer, row)))
                except KafkaError as error:
                    failed[row["topic"]] = repr(error)
        for row, sent in waiting:
            problem = self._problem(sent)
            if problem:
                failed[row["topic"]] = problem
        accepted = {row["topic"] for row, _ in waiting} - failed.keys()
        names = {topic: problem.partition("(")[0] for topic, problem in failed.items()}
        self._topic_errors = {
            topic: name for topic, name in (self._topic_errors | names).items() if topic not in accepted
        }
        for topic, problem in failed.items():
            log.warning("topic_rejected", topic=topic, error=problem)
            self._retry_times[topic] = time.monotonic() + TOPIC_BACKOFF.total_seconds()
        if failed:
            self._close_producer()  # after a failure an idempotent producer may reject every further record
        return [row["id"] for row, _ in waiting if row["topic"] not in failed]

    def _problem(self, sent: Any) -> str:
        """Waits for the broker's response, at most the delivery timeout. Returns the error, or an empty string after an acknowledgement."""
        patience = STOP_TIMEOUT.total_seconds()
        while not sent.is_done:
            try:
                sent.get(timeout=WAIT_SECONDS)
            except KafkaTimeoutError as error:
                patience -= WAIT_SECONDS if self._stopping.is_set() else 0
                if patience <= 0:
                    raise KafkaError("the relay stopped before the broker acknowledged the event") from error
            except KafkaError as error:
                return repr(error)
        return repr(sent.exception) if sent.exception else ""

    def _send_one(self, producer: KafkaProducer, row: dict[str, Any]) -> Any:
        return producer.send(
            self._topic_prefix + row["topic"],
            value=bytes(row["value"]),
            key=row["key"].encode(),
            headers=[(key, value.encode()) for key, value in row["headers"]],
        )

    def _topics_in_backoff(self) -> list[str]:
        """Returns the topics in backoff."""
        now = time.monotonic()
        self._retry_times = {topic: until for topic, until in self._retry_times.items() if until > now}
        return list(self._retry_times)

    def _prune(self, connection: Connection) -> None:
        now = datetime.now(UTC)
        deleted = inbox.prune(connection, now) + idempotency.prune(connection, now)
        if deleted:
            log.info("expired_entries_deleted", count=deleted)

    def _open_producer(self) -> KafkaProducer:
        if self._producer is None:
            self._producer = open_producer(self._broker)
        return self._producer

    def _close_producer(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            close_producer(producer)
