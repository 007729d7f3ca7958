"""A bound on the bytes that are in memory at once, whoever holds them: what does not fit waits, or is refused at once."""

import threading
from datetime import timedelta

from vesta_common.errors import ResourceExhausted

RETRY_AFTER = timedelta(seconds=1)


class ByteBudget:
    """Bytes that may be held at once. Safe to share between threads."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._changed = threading.Condition()
        self.held = 0

    def take(self, count: int) -> None:
        """Reserves.

        Raises:
            ResourceExhausted: MEMORY_LIMITED, there is not that much room now.
        """
        with self._changed:
            if self.held + count > self._bytes_max:
                raise ResourceExhausted(
                    "too many bytes are on their way at once; try again in a moment",
                    reason="MEMORY_LIMITED",
                    retry_after=RETRY_AFTER,
                )
            self.held += count

    def wait_for(self, count: int) -> None:
        """Reserves once there is room; more than all the room is given when nobody holds any."""
        with self._changed:
            self._changed.wait_for(lambda: not self.held or self.held + count <= self._bytes_max)
            self.held += count

    def give_back(self, count: int) -> None:
        """Frees."""
        with self._changed:
            self.held -= count
            self._changed.notify_all()
