"""Connection and timing options of event consumers."""

from dataclasses import dataclass
from datetime import timedelta

from vesta_common.events.broker import Broker
from vesta_common.settings import FETCH_WAIT_MS, ServiceSettings

SESSION_TIMEOUT = timedelta(seconds=6)


@dataclass(frozen=True)
class KafkaOptions:
    """Options for reading from Kafka.

    Attributes:
        topic_prefix: prefix of all topics and group ids.
        fetch_wait_ms: how long the broker may wait for records before it responds.
        session_timeout: time without heartbeats after which the group removes a member. Brokers require at least six seconds.
    """

    broker: Broker
    topic_prefix: str = ""
    session_timeout: timedelta = SESSION_TIMEOUT
    fetch_wait_ms: int = FETCH_WAIT_MS

    @classmethod
    def of(cls, settings: ServiceSettings) -> "KafkaOptions":
        """Creates the options from a service's settings."""
        return cls(Broker.of(settings), settings.kafka_topic_prefix, fetch_wait_ms=settings.kafka_fetch_wait_ms)
