"""Retry policy of consumers: backoff, number of attempts, circuit breaker. No I/O.

Transient failures are retried indefinitely, because order is guaranteed and an outage must not lose events. Permanent failures are retried
a few times, because the classification of errors may be wrong. Many permanent failures indicate a defect of the consumer rather than of the
events. The consumer then stops instead of moving all events to the dead-letter topic.
"""

from collections import deque
from datetime import datetime, timedelta

from vesta_common.backoff import exponential_backoff
from vesta_common.clock import Clock
from vesta_common.errors import is_transient

ATTEMPTS_MAX = 3
BACKOFF_FIRST = timedelta(milliseconds=200)
BACKOFF_MAX = timedelta(seconds=5)
DEAD_LETTERS_MAX = 100
DEAD_LETTERS_WINDOW = timedelta(minutes=10)


class TooManyDeadLetters(Exception):
    """The circuit breaker is open: too many events could not be handled, so the consumer is probably defective."""


class Attempts:
    """The failed attempts to handle one record.

    Attributes:
        count: the number of failed attempts.
    """

    def __init__(self) -> None:
        self.count = 0
        self._permanent = 0

    def fail(self, error: Exception) -> timedelta | None:
        """Records a failure. Returns the backoff before the next attempt, or None if there is to be none."""
        self.count += 1
        if not is_transient(error):
            self._permanent += 1
            if self._permanent == ATTEMPTS_MAX:
                return None
        return exponential_backoff(self.count, BACKOFF_FIRST, BACKOFF_MAX)


class CircuitBreaker:
    """Circuit breaker that opens when too many records become dead letters within ten minutes."""

    def __init__(self, clock: Clock, dead_letters_max: int = DEAD_LETTERS_MAX) -> None:
        self._clock = clock
        self._times: deque[datetime] = deque(maxlen=dead_letters_max)

    def count(self, reason: str) -> None:
        """Counts a dead letter.

        Raises:
            TooManyDeadLetters: the limit is reached.
        """
        self._times.append(self._clock.now())
        if len(self._times) == self._times.maxlen and self._times[-1] - self._times[0] < DEAD_LETTERS_WINDOW:
            raise TooManyDeadLetters(f"{len(self._times)} events could not be handled; the last error: {reason}")
