"""Rejects writes to the object store while its disk is nearly full. The remaining space is reserved for the database, events and labels."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from vesta_common.disk_space import FULL_BELOW, DiskSpace, disk_space
from vesta_common.errors import ResourceExhausted

RETRY_AFTER = timedelta(seconds=5)


class StorageGuard:
    """Rejects writes while the storage is full. Reads continue.

    Args:
        path: a path on the file system of the object store; None if that is on another machine and cannot be measured.
    """

    def __init__(self, path: Path | None, measure: Callable[[Path], DiskSpace] = disk_space) -> None:
        self._path = path
        self._measure = measure

    def find_space(self) -> DiskSpace | None:
        """Returns the current space; None if it cannot be measured."""
        return None if self._path is None else self._measure(self._path)

    def check(self) -> None:
        """Checks that the storage has room for writes.

        Raises:
            ResourceExhausted: STORAGE_FULL, less than 2 % is free.
        """
        space = self.find_space()
        if space is not None and space.is_full:
            raise storage_full(space)


def storage_full(space: DiskSpace | None) -> ResourceExhausted:
    """Returns the error for a rejected write, with the free space if it is known."""
    free = f": {space.free_share:.1%} ({space.free_bytes // 2**20} MiB) is free" if space else ""
    return ResourceExhausted(
        f"the platform's storage is full{free}; writes are rejected below {FULL_BELOW:.0%}. "
        "Ask an operator to free or add space. Writes then resume automatically; reads "
        "always work",
        reason="STORAGE_FULL",
        retry_after=RETRY_AFTER,
    )
