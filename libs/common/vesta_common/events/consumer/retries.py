"""When to try a record again, when to give it up, and when to stop: rules without I/O.

What may work later without anybody's doing is tried for ever, for order is promised and an outage must lose nothing. What will not
is tried a few times, as our judgement of errors may be wrong. Where much fails for good, the fault is likelier ours than that of so
many events, and going on would only fill the dead-letter topic.
"""

from collections import deque
from datetime import datetime, timedelta

from vesta_common.clock import Clock
from vesta_common.errors import is_transient

ATTEMPTS_MAX = 3
BACKOFF_FIRST = timedelta(milliseconds=200)
BACKOFF_MAX = timedelta(seconds=5)
DEAD_LETTERS_MAX = 100
DEAD_LETTERS_WINDOW = timedelta(minutes=10)
_DOUBLINGS_MAX = 10  # which is beyond BACKOFF_MAX


class TooManyDeadLetters(Exception):
    """So many events could not be handled that the fault must be ours."""


class Attempts:
    """The attempts at one record.

    Attributes:
        count: how many failed.
    """

    def __init__(self) -> None:
        self.count = 0
        self._permanent = 0

    def fail(self, error: Exception) -> timedelta | None:
        """How long to rest after this failure before the next attempt; None where the record is to be given up."""
        self.count += 1
        if not is_transient(error):
            self._permanent += 1
            if self._permanent == ATTEMPTS_MAX:
                return None
        return min(BACKOFF_FIRST * (1 << min(self.count - 1, _DOUBLINGS_MAX)), BACKOFF_MAX)


class Fuse:
    """Blows when too many records were given up within ten minutes."""

    def __init__(self, clock: Clock, dead_letters_max: int = DEAD_LETTERS_MAX) -> None:
        self._clock = clock
        self._times: deque[datetime] = deque(maxlen=dead_letters_max)

    def count(self, reason: str) -> None:
        """Counts a record that was given up.

        Raises:
            TooManyDeadLetters: it was one too many.
        """
        self._times.append(self._clock.now())
        if len(self._times) == self._times.maxlen and self._times[-1] - self._times[0] < DEAD_LETTERS_WINDOW:
            raise TooManyDeadLetters(f"{len(self._times)} events could not be handled; the last one: {reason}")
