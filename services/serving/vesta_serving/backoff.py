"""Exponential backoff of a deployment's work, so that a deployment that fails does not block the others. Pure."""

from datetime import timedelta

PENALTY_FIRST = timedelta(seconds=1)
PENALTY_MAX = timedelta(minutes=1)


def penalty(failures: int, spent: timedelta = timedelta()) -> timedelta:
    """Returns the delay after this many consecutive failures.

    Args:
        failures: 1 for the first failure.
        spent: how long the last attempt took. The delay is at least as long, so that attempts that end in a timeout use at most half
            of a worker's time.
    """
    factor: int = 2 ** min(failures - 1, 16)
    return max(spent, min(PENALTY_FIRST * factor, PENALTY_MAX))
