"""Which agreed answers a reviewer sees all the same: drawn by the task's name, so that every replica draws alike. Pure."""

import hashlib

_RANGE = 2**64


def is_sampled(task: str, share: float) -> bool:
    """Whether this task falls into the share, in [0, 1], of agreed answers that are reviewed."""
    position = int.from_bytes(hashlib.sha256(task.encode()).digest()[:8], "big") / _RANGE
    return position < share
