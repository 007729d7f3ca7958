"""Computation of the next value of an iterator while the consumer handles the current one."""

from collections.abc import Iterator
from concurrent.futures import Executor
from typing import TypeVar

T = TypeVar("T")


def prefetched(values: Iterator[T], thread: Executor) -> Iterator[T]:
    """Yields the values in order, and computes the next one in the thread meanwhile. At most two values exist at a time.

    An error of the iterator is raised when its value is requested, after the consumer has handled the values before it.
    """
    end = object()
    pending = thread.submit(next, values, end)
    while (value := pending.result()) is not end:
        pending = thread.submit(next, values, end)
        yield value  # type: ignore[misc]  # `end` is no value
