"""Publishes events of the service."""

from typing import Any

from vesta_common.clock import Clock
from vesta_common.events import outbox
from vesta_common.events.cloudevents import new_event
from vesta_common.storage.postgres import Connection

SERVICE = "training"


class Publisher:
    """Writes events to the outbox."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def publish(self, connection: Connection, subject: str, payload: Any) -> None:
        """Publishes an event, in the transaction of the caller."""
        outbox.publish(connection, new_event(SERVICE, subject, payload, self._clock.now()))
