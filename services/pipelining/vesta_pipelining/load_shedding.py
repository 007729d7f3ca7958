"""Which frames are looked at, and which uncertain ones are sent on and with what patience: the stated policy. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from vesta_contracts.pipelining.v1 import Pipeline

AGE_MAX_DEFAULT = timedelta(seconds=10)
UNCERTAIN_PER_MINUTE_DEFAULT = 60
AHEAD_MAX = timedelta(minutes=1)  # a camera's clock may be a little fast; more would defeat age_max
WINDOW = timedelta(minutes=1)
WAITING_MAX = 1000  # a stream
WAIT_MAX = timedelta(days=1)
LEASE = timedelta(minutes=1)
BACKOFF_FIRST = timedelta(seconds=0.5)
BACKOFF_MAX = timedelta(minutes=1)


def age_max(pipeline: Pipeline) -> timedelta:
    """How old a frame may be when its turn comes."""
    return pipeline.age_max.ToTimedelta() if pipeline.HasField("age_max") else AGE_MAX_DEFAULT


def uncertain_per_minute_max(pipeline: Pipeline) -> int:
    """How many uncertain frames a minute each stream may send on."""
    return pipeline.uncertain_per_minute_max or UNCERTAIN_PER_MINUTE_DEFAULT


def is_too_old(frame_time: datetime, now: datetime, age_max: timedelta) -> bool:
    """True where nobody wants to know any more."""
    return now - frame_time > age_max


def is_ahead(frame_time: datetime, now: datetime) -> bool:
    """True where the camera's clock cannot be believed."""
    return frame_time - now > AHEAD_MAX


@dataclass(frozen=True)
class Window:
    """A minute of a stream's budget."""

    start: datetime
    count: int


def admit(window: Window, now: datetime, per_minute_max: int) -> Window | None:
    """The window with one more frame in it; None where the budget is spent."""
    if now - window.start >= WINDOW:
        window = Window(now, 0)
    return Window(window.start, window.count + 1) if window.count < per_minute_max else None


def backoff(attempts: int) -> timedelta:
    """How long to wait after so many failures, the first being 1."""
    factor: int = 2 ** min(attempts - 1, 16)
    return min(BACKOFF_FIRST * factor, BACKOFF_MAX)
