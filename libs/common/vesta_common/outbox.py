"""The transactional outbox: an event commits together with the change it tells of, and a relay publishes it afterwards.

Order: ids are not in order of commit, so rows are read in order of (transaction id, id) and only below the oldest transaction that is still
running. One relay a schema holds an advisory lock and publishes; the others wait to take over. Rows are deleted after the broker's
acknowledgement, so that an event may be published twice, with the same id, and is never lost.
"""

import json
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import psycopg
import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError

from vesta_common.events import Event, encode_headers
from vesta_common.postgres import Connection, Postgres

BATCH_ROWS = 500
POLL_INTERVAL = timedelta(seconds=1)
ACK_TIMEOUT = timedelta(seconds=20)
MESSAGE_BYTES_MAX = 8 * 1024 * 1024
RELAY_LOCK = 7_305_002
BACKOFF_SECONDS = 0.5
CHANNEL_SUFFIX = "_outbox"

log = structlog.get_logger()

_CLAIM = """
SELECT id, topic, key, headers, value FROM outbox
WHERE xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY xid, id LIMIT %s
"""


def publish(connection: Connection, *events: Event) -> None:
    """Adds events to the caller's transaction. They are published, in order, once it has committed."""
    if not events:
        return
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO outbox (topic, key, headers, value) VALUES (%s, %s, %s, %s)",
            [
                (
                    event.topic,
                    event.subject,
                    json.dumps([[key, value.decode()] for key, value in encode_headers(event)]),
                    event.payload.SerializeToString(),
                )
                for event in events
            ],
        )
    connection.execute("SELECT pg_notify(current_schema() || %s, '')", (CHANNEL_SUFFIX,))


class Relay:
    """Publishes the outbox of one schema. Any number of replicas may run one; one at a time publishes.

    Args:
        bootstrap: HOST:PORT of a broker.
        topic_prefix: put before every topic.
    """

    def __init__(self, postgres: Postgres, bootstrap: str, topic_prefix: str = "") -> None:
        self._postgres = postgres
        self._bootstrap = bootstrap
        self._topic_prefix = topic_prefix
        self._stopping = threading.Event()
        self._producer: KafkaProducer | None = None
        self._thread = threading.Thread(target=self._run, name="outbox-relay", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self, timeout: timedelta) -> None:
        """Publishes what is there, then ends."""
        self._stopping.set()
        if self._thread.ident:
            self._thread.join(timeout.total_seconds())

    def healthy(self) -> bool:
        """True while the thread lives; a broker that is away is not our illness."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                with self._postgres.connect(autocommit=True) as connection:
                    self._lead(connection)
            except (psycopg.Error, KafkaError) as error:
                log.warning("relay_interrupted", error=str(error).strip())
                self._close_producer()
                self._stopping.wait(BACKOFF_SECONDS)
        self._close_producer()

    def _lead(self, connection: Connection) -> None:
        """Waits for the lock, then publishes as rows come, until it is stopped or a connection breaks."""
        while not self._is_leader(connection):
            if self._stopping.wait(POLL_INTERVAL.total_seconds()):
                return
        connection.execute(f'LISTEN "{self._postgres.schema}{CHANNEL_SUFFIX}"'.encode())
        while True:
            published = self.publish_batch(connection)
            if published:
                continue
            if self._stopping.is_set():
                return
            for _ in connection.notifies(timeout=POLL_INTERVAL.total_seconds(), stop_after=1):
                pass

    def _is_leader(self, connection: Connection) -> bool:
        row = connection.execute(
            "SELECT pg_try_advisory_lock(%s, hashtext(%s)) AS held", (RELAY_LOCK, self._postgres.schema)
        ).fetchone()
        return bool(row and row["held"])

    def publish_batch(self, connection: Connection) -> int:
        """Publishes and deletes the oldest rows; answers how many.

        Raises:
            KafkaError: the broker did not acknowledge; nothing was deleted.
        """
        rows = connection.execute(_CLAIM, (BATCH_ROWS,)).fetchall()
        if not rows:
            return 0
        self._send(rows)
        connection.execute("DELETE FROM outbox WHERE id = ANY(%s)", ([row["id"] for row in rows],))
        return len(rows)

    def _send(self, rows: Sequence[dict[str, Any]]) -> None:
        producer = self._open_producer()
        waiting = [
            producer.send(
                self._topic_prefix + row["topic"],
                value=bytes(row["value"]),
                key=row["key"].encode(),
                headers=[(key, value.encode()) for key, value in row["headers"]],
            )
            for row in rows
        ]
        producer.flush(ACK_TIMEOUT.total_seconds())
        for sent in waiting:
            sent.get(timeout=ACK_TIMEOUT.total_seconds())

    def _open_producer(self) -> KafkaProducer:
        if self._producer is None:
            self._producer = KafkaProducer(
                bootstrap_servers=self._bootstrap,
                acks="all",
                retries=5,
                max_in_flight_requests_per_connection=1,  # a retry must not overtake: a resource's events stay in order
                linger_ms=0,
                max_request_size=MESSAGE_BYTES_MAX,
                enable_idempotence=False,
            )
        return self._producer

    def _close_producer(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=1)
            self._producer = None
