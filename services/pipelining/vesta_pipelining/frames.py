"""Rules for frames: their maximum size, batches for Predict, and the ids of observations."""

import hashlib
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from ulid import ULID
from vesta_common.events.cloudevents import Event

FRAME_BYTES_MAX = 8_000_000
REQUEST_BYTES_MAX = 32_000_000


def lag(frame_time: datetime, now: datetime) -> timedelta:
    """Returns the age of a frame; zero if the camera's clock is ahead."""
    return max(timedelta(), now - frame_time)


def observation_id(stream: str, event_id: str, frame_time: datetime) -> str:
    """Returns a lower-case ULID that sorts by the frame's time, in milliseconds, and is deterministic for an event.

    Raises:
        ValueError: the frame is from before 1970.
    """
    milliseconds = int(frame_time.timestamp() * 1000)
    if milliseconds < 0:
        raise ValueError(f"{frame_time} is before 1970")
    digest = hashlib.sha256(f"{stream}\x00{event_id}".encode()).digest()
    return str(ULID(milliseconds.to_bytes(6, "big") + digest[:10])).lower()


def batches(frames: Sequence[Event], count_max: int, bytes_max: int = REQUEST_BYTES_MAX) -> Iterator[list[Event]]:
    """Splits frames, in order, into batches that fit into one request."""
    run: list[Event] = []
    size_bytes = 0
    for frame in frames:
        if run and (len(run) == count_max or size_bytes + len(frame.payload) > bytes_max):
            yield run
            run, size_bytes = [], 0
        run.append(frame)
        size_bytes += len(frame.payload)
    if run:
        yield run
