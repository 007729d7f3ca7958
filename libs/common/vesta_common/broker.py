"""How we speak to Kafka: every producer waits for all replicas and keeps order; everyone is back a second after the broker is."""

from contextlib import suppress
from datetime import timedelta
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

BOOTSTRAP_TIMEOUT = timedelta(seconds=3)
RECONNECT_BACKOFF = timedelta(milliseconds=50)
RECONNECT_BACKOFF_MAX = timedelta(seconds=1)
REQUEST_TIMEOUT = timedelta(seconds=10)
DELIVERY_TIMEOUT = timedelta(seconds=30)
TOPIC_TIMEOUT = timedelta(seconds=5)
REQUEST_BYTES_MAX = 9 * 1024 * 1024

CONNECTION: dict[str, Any] = {
    "bootstrap_timeout_ms": int(BOOTSTRAP_TIMEOUT.total_seconds() * 1000),
    "reconnect_backoff_ms": int(RECONNECT_BACKOFF.total_seconds() * 1000),
    "reconnect_backoff_max_ms": int(RECONNECT_BACKOFF_MAX.total_seconds() * 1000),
}
"""What producers and consumers of kafka-python have in common."""


def open_producer(bootstrap: str) -> KafkaProducer:
    """A producer whose records of one key arrive in order, each at least once.

    `send` raises KafkaError where the topic cannot be found for five seconds; its future is done within half a minute.

    Raises:
        KafkaError: the broker does not answer.
    """
    return KafkaProducer(
        bootstrap_servers=bootstrap,
        acks="all",
        retries=2**31 - 1,  # until the delivery timeout: what gave up earlier could be overtaken
        delivery_timeout_ms=int(DELIVERY_TIMEOUT.total_seconds() * 1000),
        request_timeout_ms=int(REQUEST_TIMEOUT.total_seconds() * 1000),
        max_block_ms=int(TOPIC_TIMEOUT.total_seconds() * 1000),
        max_in_flight_requests_per_connection=1,  # a retry must not overtake
        max_request_size=REQUEST_BYTES_MAX,
        linger_ms=0,
        enable_idempotence=False,  # not every broker suppresses duplicates; inboxes do
        **CONNECTION,
    )


def close_producer(producer: KafkaProducer) -> None:
    """Closes it without waiting for what it still holds."""
    with suppress(KafkaError):
        producer.close(timeout=0.5)
