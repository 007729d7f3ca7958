"""Measures the free space of a file system and compares it with the thresholds for low and full."""

import os
from dataclasses import dataclass
from pathlib import Path

LOW_BELOW = 0.10
FULL_BELOW = 0.02


@dataclass(frozen=True)
class DiskSpace:
    """Free and total space of a file system.

    Attributes:
        free_bytes: bytes available to an unprivileged process.
    """

    free_bytes: int
    size_bytes: int

    @property
    def free_share(self) -> float:
        """The free share of the file system, in `[0, 1]`."""
        return self.free_bytes / self.size_bytes if self.size_bytes else 0.0

    @property
    def is_low(self) -> bool:
        """True if the free share is below the warning threshold."""
        return self.free_share < LOW_BELOW

    @property
    def is_full(self) -> bool:
        """True if the service must not accept more data."""
        return self.free_share < FULL_BELOW


def disk_space(path: Path) -> DiskSpace:
    """Returns the space of the file system that contains `path`. Raises OSError if the path does not exist."""
    status = os.statvfs(path)
    return DiskSpace(status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize)
