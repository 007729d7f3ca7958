"""How we speak to Kafka: the one place for the settings of its clients, and the producer that all of us use.

Every producer waits for all in-sync replicas and keeps order; every client is back a second after the broker is.
"""

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from vesta_common.kafka_settings import KafkaSettings

BOOTSTRAP_TIMEOUT = timedelta(seconds=3)
RECONNECT_BACKOFF = timedelta(milliseconds=50)
RECONNECT_BACKOFF_MAX = timedelta(seconds=1)
REQUEST_TIMEOUT = timedelta(seconds=10)
DELIVERY_TIMEOUT = timedelta(seconds=30)
TOPIC_TIMEOUT = timedelta(seconds=5)
# The largest record of the catalogue fits a request, and the largest request fits a fetch of one partition.
REQUEST_BYTES_MAX = 9 * 1024 * 1024
FETCH_BYTES_MAX = 16 * 1024 * 1024


@dataclass(frozen=True)
class Broker:
    """How to reach Kafka.

    Attributes:
        bootstrap: HOST:PORT of one broker, or of several, separated by commas.
        security_protocol: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
        sasl_mechanism: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512; of use with SASL alone, as are name and password.
        ca_file: PEM file of the authorities that the brokers' certificates are held to; the system's where empty.
        certificate_file: PEM file of our own certificate, where the brokers ask for one; `key_file` is its key.
        is_idempotent: whether the broker suppresses a producer's duplicates, as Apache Kafka does.
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

    @classmethod
    def of(cls, settings: KafkaSettings) -> "Broker":
        """The one that the settings name."""
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
        )

    @property
    def access(self) -> dict[str, Any]:
        """Where the brokers are and who we are: what every client of kafka-python is given, the admin's included."""
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
        """What producers and consumers have in common."""
        return {
            **self.access,
            "bootstrap_timeout_ms": int(BOOTSTRAP_TIMEOUT.total_seconds() * 1000),
            "reconnect_backoff_ms": int(RECONNECT_BACKOFF.total_seconds() * 1000),
            "reconnect_backoff_max_ms": int(RECONNECT_BACKOFF_MAX.total_seconds() * 1000),
        }

    @property
    def consumer(self) -> dict[str, Any]:
        """What consumers have in common: they can read the largest record that a producer of ours can send."""
        return {**self.connection, "max_partition_fetch_bytes": FETCH_BYTES_MAX}


def open_producer(broker: Broker) -> KafkaProducer:
    """A producer whose records of one key arrive in order, each at least once; exactly once where the broker is idempotent.

    `send` raises KafkaError where the topic cannot be found for five seconds; its future is done within half a minute.

    Raises:
        KafkaError: the broker does not answer.
    """
    return KafkaProducer(
        acks="all",
        retries=2**31 - 1,  # until the delivery timeout: what gave up earlier could be overtaken
        delivery_timeout_ms=int(DELIVERY_TIMEOUT.total_seconds() * 1000),
        request_timeout_ms=int(REQUEST_TIMEOUT.total_seconds() * 1000),
        max_block_ms=int(TOPIC_TIMEOUT.total_seconds() * 1000),
        max_in_flight_requests_per_connection=1,  # a retry must not overtake
        max_request_size=REQUEST_BYTES_MAX,
        linger_ms=0,
        enable_idempotence=broker.is_idempotent,  # where it is not, inboxes suppress the duplicates
        **broker.connection,
    )


def close_producer(producer: KafkaProducer) -> None:
    """Closes it without waiting for what it still holds."""
    with suppress(KafkaError):
        producer.close(timeout=0.5)
