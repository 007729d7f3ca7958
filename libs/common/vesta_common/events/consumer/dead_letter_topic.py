"""Keeps records that cannot be handled on a service's dead-letter topic, through a producer that is opened when one is needed."""

from typing import Any

from kafka import KafkaProducer

from vesta_common.events import dead_letters
from vesta_common.events.broker import Broker, close_producer, open_producer
from vesta_common.events.consumer.metrics import ConsumerMetrics


class DeadLetterTopic:
    """The dead-letter topic of a consumer.

    Args:
        topic: with its prefix.
        consumer: for whom the metrics count what is kept.
    """

    def __init__(self, broker: Broker, topic: str, consumer: str, metrics: ConsumerMetrics) -> None:
        self._broker = broker
        self._topic = topic
        self._counted = metrics.dead.labels(consumer)
        self._producer: KafkaProducer | None = None

    def keep(self, record: Any, reason: str) -> None:
        """Returns when the broker has the record with the reason.

        Raises:
            KafkaError: it has not; the record must not be passed over.
        """
        if self._producer is None:
            self._producer = open_producer(self._broker)
        dead_letters.send(self._producer, self._topic, record, reason)
        self._counted.inc()

    def close(self) -> None:
        """Closes the producer; it is opened again when it is needed."""
        producer, self._producer = self._producer, None
        if producer is not None:
            close_producer(producer)
