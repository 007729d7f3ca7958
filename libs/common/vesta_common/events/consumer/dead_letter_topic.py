"""Stores records that cannot be handled on the service's dead-letter topic. The producer is opened on demand."""

from typing import Any

from kafka import KafkaProducer

from vesta_common.events import dead_letters
from vesta_common.events.broker import Broker, close_producer, open_producer
from vesta_common.events.consumer.metrics import ConsumerMetrics


class DeadLetterTopic:
    """The dead-letter topic of a consumer.

    Args:
        topic: the topic with its prefix.
        consumer: the consumer label for metrics.
    """

    def __init__(self, broker: Broker, topic: str, consumer: str, metrics: ConsumerMetrics) -> None:
        self._broker = broker
        self._topic = topic
        self._counted = metrics.dead.labels(consumer)
        self._producer: KafkaProducer | None = None

    def keep(self, record: Any, reason: str) -> None:
        """Stores the record with the reason. Returns after the broker has acknowledged it.

        Raises:
            KafkaError: the broker did not acknowledge the record; the caller must not skip it.
        """
        if self._producer is None:
            self._producer = open_producer(self._broker)
        dead_letters.send(self._producer, self._topic, record, reason)
        self._counted.inc()

    def close(self) -> None:
        """Closes the producer. The next `keep` opens it again."""
        producer, self._producer = self._producer, None
        if producer is not None:
            close_producer(producer)
