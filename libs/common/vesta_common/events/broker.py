"""Kafka client configuration: connection settings, and the producer that all services use.

Every producer waits for all in-sync replicas and preserves order. Clients reconnect within one second after the broker is back.
"""

import pkgutil
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from vesta_common.events.response_classes import create_response_classes
from vesta_common.kafka_settings import KafkaSettings

create_response_classes()

BOOTSTRAP_TIMEOUT = timedelta(seconds=3)
RECONNECT_BACKOFF = timedelta(milliseconds=50)
RECONNECT_BACKOFF_MAX = timedelta(seconds=1)
REQUEST_TIMEOUT = timedelta(seconds=10)
DELIVERY_TIMEOUT = timedelta(seconds=30)
TOPIC_TIMEOUT = timedelta(seconds=5)
# The largest record of the event catalogue fits into a request, and the largest request fits into a fetch of one partition.
REQUEST_BYTES_MAX = 9 * 1024 * 1024
# Below the limit of any topic, which is also that of a batch. With the usual 16 KiB, a burst is written in several times as many batches.
BATCH_BYTES = 512 * 1024
FETCH_BYTES_MAX = 16 * 1024 * 1024
# Nothing reads the metrics of kafka-python, which cost a seventh of the processor time of a small record.
_NO_METRICS = {"metrics_enabled": False}


@dataclass(frozen=True)
class Broker:
    """Connection settings of a Kafka cluster.

    Attributes:
        bootstrap: HOST:PORT of one or more brokers, separated by commas.
        security_protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        sasl_mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512. Used only with SASL, as are the user name and password.
        ca_file: PEM file of the certificate authorities that sign the brokers' certificates; empty for the system's default.
        certificate_file: PEM file of the client certificate, if the brokers require one. `key_file` contains its key.
        is_idempotent: whether the broker supports idempotent producers, as Apache Kafka does.
        consumer_class: module:class of consumers; kafka-python's for Apache Kafka.
    """

    bootstrap: str
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str = ""
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    is_idempotent: bool = False
    consumer_class: str = "kafka:KafkaConsumer"

    @classmethod
    def of(cls, settings: KafkaSettings) -> "Broker":
        """Creates the connection settings from a service's settings."""
        return cls(
            bootstrap=settings.kafka_bootstrap,
            security_protocol=settings.kafka_security_protocol,
            sasl_mechanism=settings.kafka_sasl_mechanism,
            sasl_username=settings.kafka_sasl_username,
            sasl_password=settings.kafka_sasl_password.get_secret_value(),
            ca_file=settings.kafka_ca_file,
            certificate_file=settings.kafka_certificate_file,
            key_file=settings.kafka_key_file,
            is_idempotent=settings.kafka_idempotence,
            consumer_class=settings.kafka_consumer_class,
        )

    @property
    def access(self) -> dict[str, Any]:
        """Options for addresses and authentication, shared by all clients of kafka-python, including the admin client."""
        options: dict[str, Any] = {
            "bootstrap_servers": self.bootstrap.split(","),
            "security_protocol": self.security_protocol,
        }
        if self.security_protocol.startswith("SASL"):
            options |= {
                "sasl_mechanism": self.sasl_mechanism,
                "sasl_plain_username": self.sasl_username,
                "sasl_plain_password": self.sasl_password,
            }
        if self.security_protocol.endswith("SSL"):
            options |= {
                "ssl_cafile": self.ca_file or None,
                "ssl_certfile": self.certificate_file or None,
                "ssl_keyfile": self.key_file or None,
            }
        return options

    @property
    def connection(self) -> dict[str, Any]:
        """Options shared by producers and consumers."""
        return {
            **self.access,
            "bootstrap_timeout_ms": int(BOOTSTRAP_TIMEOUT.total_seconds() * 1000),
            "reconnect_backoff_ms": int(RECONNECT_BACKOFF.total_seconds() * 1000),
            "reconnect_backoff_max_ms": int(RECONNECT_BACKOFF_MAX.total_seconds() * 1000),
        }


def open_consumer(broker: Broker, *topics: str, **options: Any) -> KafkaConsumer:
    """Opens a consumer of these topics with these options of kafka-python.

    The fetch size covers the largest record that a producer can send.

    Raises:
        KafkaError: the broker does not respond.
    """
    consumer_class = pkgutil.resolve_name(broker.consumer_class)
    return consumer_class(
        *topics, **{"max_partition_fetch_bytes": FETCH_BYTES_MAX, **_NO_METRICS, **broker.connection, **options}
    )


def open_producer(broker: Broker) -> KafkaProducer:
    """Opens a producer that preserves the order per key and delivers at least once; exactly once if the broker is idempotent.

    `send` raises KafkaError if the topic is not found within five seconds. Its future completes within 30 seconds.

    Raises:
        KafkaError: the broker does not respond.
    """
    return KafkaProducer(
        acks="all",
        retries=2**31 - 1,  # the delivery timeout limits retries; a record that failed earlier could be overtaken
        delivery_timeout_ms=int(DELIVERY_TIMEOUT.total_seconds() * 1000),
        request_timeout_ms=int(REQUEST_TIMEOUT.total_seconds() * 1000),
        max_block_ms=int(TOPIC_TIMEOUT.total_seconds() * 1000),
        max_in_flight_requests_per_connection=1,  # a retried record must not be overtaken
        max_request_size=REQUEST_BYTES_MAX,
        batch_size=BATCH_BYTES,
        linger_ms=0,
        enable_idempotence=broker.is_idempotent,  # otherwise the inbox discards duplicates
        **_NO_METRICS,
        **broker.connection,
    )


def close_producer(producer: KafkaProducer) -> None:
    """Closes a producer without waiting for unsent records."""
    with suppress(KafkaError):
        producer.close(timeout=0.5)
