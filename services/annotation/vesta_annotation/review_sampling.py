"""Samples decided tasks for review. The sample depends on the task's name alone, so that all replicas draw the same sample. Pure."""

import hashlib

_BITS = 53  # the precision of a float
_RANGE = 2.0**_BITS


def is_sampled(task: str, share: float) -> bool:
    """Whether the task with this name is in the sample.

    Args:
        share: of tasks to sample, in [0, 1].
    """
    drawn = int.from_bytes(hashlib.sha256(task.encode()).digest()[:8], "big") >> (64 - _BITS)
    return drawn < share * _RANGE
