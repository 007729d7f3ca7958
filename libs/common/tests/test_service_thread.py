"""The thread of a service: works in steps, and pauses after failures."""

import queue
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs
from vesta_common.errors import Unavailable
from vesta_common.service_thread import BACKOFF_MAX, NO_PAUSE, ServiceThread

PATIENCE = timedelta(seconds=10)


class Stepping(ServiceThread):
    """A thread whose steps a test decides.

    Attributes:
        begun: has one entry per step.
    """

    def __init__(self, work: Callable[[int], None], backoff_max: timedelta = BACKOFF_MAX) -> None:
        super().__init__("sample", (OSError,), backoff_max)
        self._work = work
        self._count = 0
        self.begun: queue.Queue[int] = queue.Queue()

    def _step(self) -> timedelta:
        self._count += 1
        self.begun.put(self._count)
        self._work(self._count)
        return NO_PAUSE


@contextmanager
def started(thread: Stepping) -> Iterator[list[Any]]:
    """Runs the thread while the block runs; yields what it logs."""
    with capture_logs() as logged:
        thread.start()
        yield logged
        thread.stop(PATIENCE)


def fail(_: int) -> None:
    raise Unavailable("not now")


def test_consecutive_failures_are_counted_and_a_wake_ends_the_pause() -> None:
    thread = Stepping(fail)
    with started(thread) as logged:
        for count in range(1, 4):
            assert thread.begun.get(timeout=PATIENCE.total_seconds()) == count
            thread.wake()
    assert [entry["failures"] for entry in logged[:3]] == [1, 2, 3]
    assert not thread.healthy()


def test_a_step_that_worked_for_longer_than_the_maximum_pause_counts_as_the_first_failure() -> None:
    backoff_max = timedelta(milliseconds=1)

    def work(count: int) -> None:
        begin = time.monotonic()
        while count == 3 and time.monotonic() - begin < 5 * backoff_max.total_seconds():
            pass
        raise Unavailable("not now")

    thread = Stepping(work, backoff_max=timedelta(milliseconds=1))
    with started(thread) as logged:
        for _ in range(5):
            thread.begun.get(timeout=PATIENCE.total_seconds())
    counted = [entry["failures"] for entry in logged]
    assert counted[2] == 1


@pytest.mark.parametrize(
    ("error", "event"),
    [
        (Unavailable("not now"), "step_postponed"),
        (OSError("no route to host"), "step_postponed"),
        (ValueError("a mistake"), "step_failed"),
    ],
)
def test_outages_are_logged_without_a_traceback(error: Exception, event: str) -> None:
    def work(_: int) -> None:
        raise error

    thread = Stepping(work)
    with started(thread) as logged:
        thread.begun.get(timeout=PATIENCE.total_seconds())
    assert (logged[0]["event"], logged[0]["thread"]) == (event, "sample")
    assert ("exc_info" in logged[0]) is (event == "step_failed")
