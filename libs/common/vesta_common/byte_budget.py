"""A process-wide limit on bytes in memory: a request over the limit waits, or is rejected immediately."""

import threading
from datetime import timedelta

from vesta_common.errors import ResourceExhausted

RETRY_AFTER = timedelta(seconds=1)


class ByteBudget:
    """Limits the number of bytes held in memory at the same time. Thread-safe."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._changed = threading.Condition()
        self.held = 0

    def acquire(self, count: int) -> None:
        """Reserves `count` bytes.

        Raises:
            ResourceExhausted: MEMORY_LIMITED, the remaining budget is smaller than `count`.
        """
        with self._changed:
            if self.held + count > self._bytes_max:
                raise ResourceExhausted(
                    "the memory limit for requests in progress is reached; retry later",
                    reason="MEMORY_LIMITED",
                    retry_after=RETRY_AFTER,
                )
            self.held += count

    def wait_for(self, count: int) -> None:
        """Reserves `count` bytes, waiting until they are available. A count above the limit is granted when nothing else is reserved."""
        with self._changed:
            self._changed.wait_for(lambda: not self.held or self.held + count <= self._bytes_max)
            self.held += count

    def release(self, count: int) -> None:
        """Releases `count` bytes."""
        with self._changed:
            self.held -= count
            self._changed.notify_all()
