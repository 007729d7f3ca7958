"""Which decisions of the experts a reviewer sees all the same: drawn by the task's name, so that every replica draws alike. Pure."""

import hashlib

_BITS = 53  # what a float holds exactly
_RANGE = 2.0**_BITS


def is_sampled(task: str, share: float) -> bool:
    """Whether the task named so falls into the share, in [0, 1]."""
    drawn = int.from_bytes(hashlib.sha256(task.encode()).digest()[:8], "big") >> (64 - _BITS)
    return drawn < share * _RANGE
