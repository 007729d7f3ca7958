"""Free space of a file system: measured, and judged."""

import os
from dataclasses import dataclass
from pathlib import Path

LOW_BELOW = 0.10
FULL_BELOW = 0.02


@dataclass(frozen=True)
class DiskSpace:
    """A file system's space.

    Attributes:
        free_bytes: what an unprivileged process may still write.
    """

    free_bytes: int
    size_bytes: int

    @property
    def free_share(self) -> float:
        """In `[0, 1]`."""
        return self.free_bytes / self.size_bytes if self.size_bytes else 0.0

    @property
    def is_low(self) -> bool:
        """Whether somebody should make room soon."""
        return self.free_share < LOW_BELOW

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be taken in."""
        return self.free_share < FULL_BELOW


def disk_space(path: Path) -> DiskSpace:
    """The space of the file system that holds a path. Raises OSError where there is no such path."""
    found = os.statvfs(path)
    return DiskSpace(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
