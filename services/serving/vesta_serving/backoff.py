"""Exponential backoff of a deployment's work, so that a deployment that fails does not block the others. Pure."""

from datetime import timedelta

from vesta_common.backoff import exponential_backoff

BACKOFF_FIRST = timedelta(seconds=1)
BACKOFF_MAX = timedelta(minutes=1)


def backoff_delay(failures: int, spent: timedelta = timedelta()) -> timedelta:
    """Returns the delay after this many consecutive failures.

    Args:
        failures: 1 for the first failure.
        spent: how long the last attempt took. The delay is at least as long, so that attempts that end in a timeout use at most half
            of a worker's time.
    """
    return max(spent, exponential_backoff(failures, BACKOFF_FIRST, BACKOFF_MAX))
