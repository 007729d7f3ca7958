"""A thread of a service that works in steps until the service stops."""

import threading
import time
from abc import ABC, abstractmethod
from datetime import timedelta

import structlog

from vesta_common.backoff import exponential_backoff
from vesta_common.errors import is_transient

BACKOFF_FIRST = timedelta(milliseconds=400)
BACKOFF_MAX = timedelta(seconds=10)
NO_PAUSE = timedelta()

log = structlog.get_logger()


class ServiceThread(ABC):
    """A daemon thread that calls `_step` until it is stopped.

    After a failed step it pauses: exponential backoff from the first of consecutive failures, but no longer than the error's `retry_after`.
    A step that ran for longer than the maximum pause before it failed counts as the first failure.

    Args:
        name: the name of the thread, also in logs.
        outages: errors of unavailable engines, which are logged without a traceback, like transient errors.
        backoff_max: the maximum pause after a failure.
    """

    def __init__(
        self, name: str, outages: tuple[type[Exception], ...] = (), backoff_max: timedelta = BACKOFF_MAX
    ) -> None:
        self._name = name
        self._outages = outages
        self._backoff_max = backoff_max
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def wake(self) -> None:
        """Ends the current pause."""
        self._wake.set()

    def stop(self, timeout: timedelta) -> None:
        """Asks the thread to stop after the current step and waits for it, at most `timeout`."""
        self._stopping.set()
        self._wake.set()
        if self._thread.ident:
            self._thread.join(timeout.total_seconds())

    def healthy(self) -> bool:
        """Returns True while the thread runs."""
        return self._thread.is_alive()

    @abstractmethod
    def _step(self) -> timedelta:
        """Does one unit of work, or works until `_stopping` is set. Returns the pause before the next step."""

    def _run(self) -> None:
        failures = 0
        while True:
            begin = time.monotonic()
            try:
                pause = self._step()
                failures = 0
            except Exception as error:  # noqa: BLE001 - the thread must continue
                lasted = time.monotonic() - begin
                failures = failures + 1 if lasted <= self._backoff_max.total_seconds() else 1
                self._log_failure(error, failures)
                pause = self._pause_after(error, failures)
            if pause:
                self._wake.wait(pause.total_seconds())
                self._wake.clear()
            if self._stopping.is_set():
                return

    def _pause_after(self, error: Exception, failures: int) -> timedelta:
        backoff = exponential_backoff(failures, min(BACKOFF_FIRST, self._backoff_max), self._backoff_max)
        retry_after: timedelta | None = getattr(error, "retry_after", None)
        return min(backoff, retry_after) if retry_after else backoff

    def _log_failure(self, error: Exception, failures: int) -> None:
        if is_transient(error) or isinstance(error, self._outages):
            log.warning("step_postponed", thread=self._name, error=str(error).strip() or repr(error), failures=failures)
        else:
            log.error("step_failed", thread=self._name, failures=failures, exc_info=error)
