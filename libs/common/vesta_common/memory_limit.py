"""How much memory the control groups of this process grant it: beyond it the kernel kills, in a pod the whole container."""

from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
OWN = Path("/proc/self/cgroup")
UNLIMITED = 2**60
"""Version 1 says "no limit" by a number above this one."""


def memory_room_bytes(root: Path = ROOT, own: Path = OWN) -> int | None:
    """The smallest limit of the groups that this process is in; None where there is none.

    Args:
        root: where the control groups are mounted, of version 2, 1 or both (https://docs.kernel.org/admin-guide/cgroup-v2.html).
        own: lists the groups of this process, as `/proc/self/cgroup` does.
    """
    found = [limit for path in _files(root, own) if (limit := _limit(path)) is not None]
    return min(found, default=None)


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
        # Within a container a group's path may be the host's, and the container's own group is what is mounted.
        for parent in here.parents:
            if parent.is_relative_to(mount):
                yield parent / name


def _limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() and int(text) < UNLIMITED else None
