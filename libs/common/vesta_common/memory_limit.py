"""Reads the memory limit of this process from its control groups. The kernel kills processes (in a pod: the container) above the limit."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
UNLIMITED = 2**60
"""Control groups version 1 represent "no limit" by a number above this one."""


def memory_limit_bytes(root: Path = ROOT, own: Path = OWN) -> int | None:
    """Returns the smallest memory limit of the process's control groups; None if there is no limit.

    Args:
        root: mount point of the control groups, version 2, 1 or both (https://docs.kernel.org/admin-guide/cgroup-v2.html).
        own: file that lists the control groups of this process, in the format of `/proc/self/cgroup`.
    """
    limits = [limit for path in _files(root, own) if (limit := _limit(path)) is not None]
    return min(limits, default=None)


def _files(root: Path, own: Path) -> Iterator[Path]:
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            mount, name = root, "memory.max"
        elif "memory" in controllers.split(","):
            mount, name = root / "memory", "memory.limit_in_bytes"
        else:
            continue
        here = mount / group.lstrip("/")
        yield here / name
        # In a container the path may be the host's, while the mount point is the container's own group. Check the parents too.
        for parent in here.parents:
            if parent.is_relative_to(mount):
                yield parent / name


def _limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < UNLIMITED else None
