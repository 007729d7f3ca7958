"""Exponential backoff of a deployment's work, so that a deployment that fails does not block the others. Pure."""

from datetime import timedelta

PENALTY_FIRST = timedelta(seconds=1)
PENALTY_MAX = timedelta(minutes=1)


def penalty(failures: int, spent: timedelta = timedelta()) -> timedelta:
    """How long to wait after so many failures in a row.

    Args:
        failures: the first being 1.
        spent: how long the last attempt took. The wait is no shorter, so that attempts that end in a timeout take at most half
            of a worker's time.
    """
    factor: int = 2 ** min(failures - 1, 16)
    return max(spent, min(PENALTY_FIRST * factor, PENALTY_MAX))
