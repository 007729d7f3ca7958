"""Which frames are looked at, and which uncertain ones are sent on: the stated policy. Pure."""

from datetime import datetime, timedelta

from vesta_contracts.pipelining.v1 import Pipeline

AGE_MAX_DEFAULT = timedelta(seconds=10)
UNCERTAIN_PER_MINUTE_DEFAULT = 60
MINUTE = timedelta(minutes=1)


def age_max(pipeline: Pipeline) -> timedelta:
    """How old a frame may be when its turn comes."""
    return pipeline.age_max.ToTimedelta() if pipeline.HasField("age_max") else AGE_MAX_DEFAULT


def is_too_old(frame_time: datetime, now: datetime, pipeline: Pipeline) -> bool:
    """Whether a frame is dropped. One from the future, by a camera whose clock is ahead, is not."""
    return now - frame_time > age_max(pipeline)


def room_for_uncertain(pipeline: Pipeline, sent_last_minute: int) -> int:
    """How many more uncertain frames a stream may send on just now; none where no Source is named."""
    if not pipeline.uncertain_source:
        return 0
    return max(0, (pipeline.uncertain_per_minute_max or UNCERTAIN_PER_MINUTE_DEFAULT) - sent_last_minute)
