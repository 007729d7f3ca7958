"""Exponential backoff. Pure."""

from datetime import timedelta

_DOUBLINGS_MAX = 32  # keeps the product within a timedelta


def exponential_backoff(attempt: int, first: timedelta, maximum: timedelta) -> timedelta:
    """Returns the delay after the failure of this attempt: `first`, then twice as long after each further one, up to `maximum`.

    Args:
        attempt: the number of consecutive failed attempts, 1 after the first failure.
    """
    factor: int = 1 << min(max(attempt - 1, 0), _DOUBLINGS_MAX)
    return maximum if factor >= maximum / first else first * factor
