"""How long a broker may take for a fetch, and when that is too short for it to read anything at all.

Kafka answers a fetch with whatever it has. A simpler broker looks for the records in the time in which it may wait for them, and
where that has passed answers with nothing, the next time too: the more a partition holds, or the busier the machine is, the longer it
takes. Such a broker is given twice the time, again and again, for what is not read in time would never be read.
"""

from collections.abc import Callable
from datetime import datetime, timedelta

from vesta_common.clock import Clock

STARVED_AFTER = timedelta(seconds=1)  # beside two fetches
MS_MAX = 5000


class Starved(Exception):
    """The broker has records and gives none; a new consumer is to give it longer."""


class FetchWait:
    """The wait that one consumer after another asks for.

    Args:
        ms: the first one's.

    Attributes:
        ms: what a consumer that is opened now is to ask for.
    """

    def __init__(self, ms: int, clock: Clock) -> None:
        self.ms = self._first_ms = ms
        self._clock = clock
        self._empty_since: datetime | None = None

    def note_poll(self, is_empty: bool, is_behind: Callable[[], bool]) -> None:
        """Takes note of what a poll brought; `is_behind` tells whether the broker has something that it has not given.

        Raises:
            Starved: nothing came for a second and two fetches, though there is something; `ms` is twice what it was.
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
        """Begins again with the first wait, as when the broker was away."""
        self.ms = self._first_ms
        self._empty_since = None
