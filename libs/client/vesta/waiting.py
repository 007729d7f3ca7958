"""Polling of long-running work with increasing intervals, until a condition holds or a deadline passes."""

import math
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

T = TypeVar("T")

DEADLINE = timedelta(hours=24)
_FIRST_PAUSE_SECONDS = 0.05
_PAUSE_SECONDS_MAX = 0.5


def wait_until(
    ask: Callable[[], T],
    is_done: Callable[[T], bool],
    on_progress: Callable[[T], None] = lambda _: None,
    deadline: timedelta | None = DEADLINE,
) -> T:
    """Returns the first response of `ask` for which `is_done` holds. Earlier responses are passed to `on_progress`.

    Args:
        deadline: the maximum wait; unlimited if None.

    Raises:
        TimeoutError: it was not done within `deadline`; the message has the last response.
    """
    end = time.monotonic() + deadline.total_seconds() if deadline else math.inf
    pause = _FIRST_PAUSE_SECONDS
    while True:
        answer = ask()
        on_progress(answer)
        if is_done(answer):
            return answer
        if time.monotonic() > end:
            raise TimeoutError(f"not done after {deadline}; the last response: {answer}")
        time.sleep(pause)
        pause = min(pause * 1.5, _PAUSE_SECONDS_MAX)
