"""How a service reads from the broker."""

from dataclasses import dataclass
from datetime import timedelta

from vesta_common.events.broker import Broker
from vesta_common.settings import ServiceSettings

SESSION_TIMEOUT = timedelta(seconds=6)
FETCH_WAIT_MS = 100
QUIET_AFTER = timedelta(seconds=5)


@dataclass(frozen=True)
class KafkaOptions:
    """How to read from the broker.

    Attributes:
        topic_prefix: put before every topic and group.
        fetch_wait_ms: how long the broker may hold back the answer that there is nothing yet; longer where that is too short to read.
        quiet_after: when nothing has come for so long, the broker is asked four times a second at most.
        session_timeout: after which a member that is silent is taken for dead; brokers want at least six seconds.
    """

    broker: Broker
    topic_prefix: str = ""
    session_timeout: timedelta = SESSION_TIMEOUT
    fetch_wait_ms: int = FETCH_WAIT_MS
    quiet_after: timedelta = QUIET_AFTER

    @classmethod
    def of(cls, settings: ServiceSettings) -> "KafkaOptions":
        """The broker that the settings name."""
        return cls(Broker.of(settings), settings.kafka_topic_prefix, fetch_wait_ms=settings.kafka_fetch_wait_ms)
