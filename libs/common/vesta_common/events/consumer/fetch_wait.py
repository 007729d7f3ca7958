"""Adapts the maximum wait of fetch requests to brokers that cannot read records within it.

Apache Kafka responds to a fetch with the records it has. The embedded broker reads records only within the wait of the fetch: if reading
takes longer, it returns nothing, and so does every retry. Reading takes longer for large partitions and on busy machines. The consumer
therefore doubles the wait until records arrive.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from vesta_common.clock import Clock

STARVED_AFTER = timedelta(seconds=1)  # in addition to two fetches
MS_MAX = 5000


class Starved(Exception):
    """The broker has records but returns none. The consumer is reopened with a longer wait."""


class FetchWait:
    """The fetch wait for successive consumers.

    Args:
        ms: the initial wait.

    Attributes:
        ms: the wait for the next consumer.
    """

    def __init__(self, ms: int, clock: Clock) -> None:
        self.ms = self._first_ms = ms
        self._clock = clock
        self._empty_since: datetime | None = None

    def record_poll(self, is_empty: bool, is_behind: Callable[[], bool]) -> None:
        """Records the result of a poll. `is_behind` reports whether the broker has records that it has not returned.

        Raises:
            Starved: polls returned nothing for one second plus two fetches although records exist; `ms` was doubled.
        """
        now = self._clock.now()
        if not is_empty:
            self._empty_since = None
        elif self._empty_since is None or now < self._empty_since:
            self._empty_since = now
        elif now - self._empty_since >= STARVED_AFTER + timedelta(milliseconds=2 * self.ms):
            self._empty_since = now
            if self.ms < MS_MAX and is_behind():
                self.ms = min(2 * self.ms, MS_MAX)
                raise Starved(f"the broker has records and gives none; it has {self.ms} ms for a fetch from now on")

    def reset(self) -> None:
        """Restores the initial wait, for example after a broker outage."""
        self.ms = self._first_ms
        self._empty_since = None
