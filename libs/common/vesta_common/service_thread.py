"""A thread of a service that runs until the service stops."""

import threading
from abc import ABC, abstractmethod
from datetime import timedelta


class ServiceThread(ABC):
    """A daemon thread that runs `_run`, which returns soon after `_stopping` is set.

    Args:
        name: the name of the thread.
    """

    def __init__(self, name: str) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self, timeout: timedelta) -> None:
        """Asks the thread to stop and waits for it, at most `timeout`."""
        self._stopping.set()
        if self._thread.ident:
            self._thread.join(timeout.total_seconds())

    def healthy(self) -> bool:
        """Returns True while the thread runs."""
        return self._thread.is_alive()

    @abstractmethod
    def _run(self) -> None:
        """Works until `_stopping` is set."""
