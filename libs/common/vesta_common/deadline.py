"""The deadline of the call that is being handled. Calls to other services and engines on its behalf do not exceed it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

TIMEOUT_MIN_SECONDS = 0.001

_deadline: ContextVar[float | None] = ContextVar("deadline", default=None)  # on the monotonic clock


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """Runs the block with a deadline, or with that of the caller if it is earlier; None sets none."""
    outer, own = _deadline.get(), None if seconds is None else time.monotonic() + seconds
    token = _deadline.set(min((each for each in (outer, own) if each is not None), default=None))
    try:
        yield
    finally:
        _deadline.reset(token)


@contextmanager
def until(moment: float | None) -> Iterator[None]:
    """Runs the block, which is work for several callers, with this deadline on the monotonic clock; None for none."""
    token = _deadline.set(moment)
    try:
        yield
    finally:
        _deadline.reset(token)


def find() -> float | None:
    """Returns the deadline on the monotonic clock; None if there is none."""
    return _deadline.get()


def limited(timeout_seconds: float) -> float:
    """Returns the timeout, or the time until the deadline if that is shorter. It is always positive."""
    deadline = _deadline.get()
    if deadline is None:
        return timeout_seconds
    return max(TIMEOUT_MIN_SECONDS, min(timeout_seconds, deadline - time.monotonic()))


def has_passed() -> bool:
    """Whether the deadline has passed."""
    deadline = _deadline.get()
    return deadline is not None and time.monotonic() >= deadline
