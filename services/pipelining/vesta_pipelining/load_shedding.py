"""The policy for load: which frames are processed, and how many uncertain frames are uploaded, with which retries. Pure."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from vesta_contracts.pipelining.v1 import Pipeline

AGE_MAX_DEFAULT = timedelta(seconds=10)
UNCERTAIN_PER_MINUTE_DEFAULT = 60
AHEAD_MAX = timedelta(minutes=1)  # tolerated clock skew of a camera; more would defeat age_max
WINDOW = timedelta(minutes=1)
WAITING_MAX = 1000  # per stream
WAIT_MAX = timedelta(days=1)
BACKOFF_FIRST = timedelta(seconds=0.5)
BACKOFF_MAX = timedelta(minutes=1)


def age_max(pipeline: Pipeline) -> timedelta:
    """Returns the maximum age of a frame when it is processed."""
    return pipeline.age_max.ToTimedelta() if pipeline.HasField("age_max") else AGE_MAX_DEFAULT


def uncertain_per_minute_max(pipeline: Pipeline) -> int:
    """Returns the maximum number of uncertain frames per minute and stream."""
    return pipeline.uncertain_per_minute_max or UNCERTAIN_PER_MINUTE_DEFAULT


def is_too_old(frame_time: datetime, now: datetime, age_max: timedelta) -> bool:
    """Whether a frame is older than the maximum age."""
    return now - frame_time > age_max


def is_ahead(frame_time: datetime, now: datetime) -> bool:
    """Whether the camera's clock is implausibly far ahead."""
    return frame_time - now > AHEAD_MAX


@dataclass(frozen=True)
class Window:
    """The uncertain frames of a stream in the current minute, for rate limiting."""

    start: datetime
    count: int


def admit(window: Window, now: datetime, per_minute_max: int) -> Window | None:
    """Returns the window with one more frame; None if the limit is reached."""
    if now - window.start >= WINDOW:
        window = Window(now, 0)
    return Window(window.start, window.count + 1) if window.count < per_minute_max else None
