"""Retries of what the platform refused because it was busy: after the time that it named, for as long as one has patience."""

import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from vesta.errors import ApiError

T = TypeVar("T")

PAUSE_SECONDS_MAX = 30.0
JITTER = 0.5
"""By so much at most a pause is longer than the platform asked for, at random, so that not everybody comes back at once."""


class Patience:
    """How long a call is tried.

    Args:
        total: in all, from now on.
        monotonic: seconds of a clock that never turns back.
        sleep: pauses for some seconds.
    """

    def __init__(
        self,
        total: timedelta,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self._deadline = monotonic() + total.total_seconds()

    @property
    def is_over(self) -> bool:
        """True where there is no time left."""
        return self._monotonic() >= self._deadline

    def pause(self, seconds: float) -> bool:
        """Pauses; False at once where the pause would not end in time."""
        if self._monotonic() + seconds >= self._deadline:
            return False
        self._sleep(seconds)
        return True

    def pause_after(self, error: ApiError) -> bool:
        """Pauses for as long as a busy platform asked for; False at once where it is another error, or too long."""
        if not error.is_overload:
            return False
        asked = min(error.retry_after_seconds or 0.0, PAUSE_SECONDS_MAX)
        return self.pause(asked * (1 + JITTER * random.random()))  # noqa: S311 - spreads load, keeps no secret


def until_admitted(call: Callable[[], T], patience: timedelta) -> T:
    """The answer of a call that can be made again, also where the platform is busy at first.

    Raises:
        ApiError: it was refused for another reason, or is busy for longer than one has patience.
    """
    trying = Patience(patience)
    while True:
        try:
            return call()
        except ApiError as error:
            if not trying.pause_after(error):
                raise
