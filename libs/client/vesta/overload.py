"""Retries of calls that the platform rejected because of overload, after the retry_after delay, until `patience` has elapsed."""

import random
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from vesta.errors import ApiError

T = TypeVar("T")

PAUSE_SECONDS_MAX = 30.0
JITTER = 0.5
"""The maximum random extension of a delay, as a share, so that clients do not retry at the same time."""


class Patience:
    """The time limit of the retries of a call.

    Args:
        total: the total duration, from now on.
        monotonic: a monotonic clock in seconds.
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
        """Whether the time has elapsed."""
        return self._monotonic() >= self._deadline

    def pause(self, seconds: float) -> bool:
        """Pauses. Returns False immediately if the pause would exceed the limit."""
        if self._monotonic() + seconds >= self._deadline:
            return False
        self._sleep(seconds)
        return True

    def pause_after(self, error: ApiError) -> bool:
        """Pauses for the retry delay of an overloaded platform. Returns False immediately for other errors, or if the
        delay exceeds the limit.
        """
        if not error.is_overload:
            return False
        retry_after = min(error.retry_after_seconds or 0.0, PAUSE_SECONDS_MAX)
        return self.pause(retry_after * (1 + JITTER * random.random()))  # noqa: S311 - spreads load, keeps no secret


def until_admitted(call: Callable[[], T], patience: timedelta) -> T:
    """Returns the response of an idempotent call, with retries while the platform is overloaded.

    Raises:
        ApiError: the call failed for another reason, or the platform is overloaded for too long.
    """
    trying = Patience(patience)
    while True:
        try:
            return call()
        except ApiError as error:
            if not trying.pause_after(error):
                raise
