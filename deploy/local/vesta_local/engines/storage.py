"""Watches what the object store needs of this machine, room on its disk and its sockets, and restarts it where that is back or gone.

SeaweedFS stops writing while less than 1 % is free, looks again once a minute, and cannot be told to look sooner. Its parts talk over
sockets in /tmp, wherever its own folder lies, and where somebody tidies up there it never writes again. Started anew, it writes within a
second in both cases.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Set
from datetime import timedelta
from pathlib import Path

from vesta_common.disk_space import DiskSpace, disk_space

from vesta_local.home import TWIN_OFFSET, Home
from vesta_local.program import Program

NAME = "storage"
INTERVAL = timedelta(seconds=2)
SOCKETS = Path("/tmp")  # noqa: S108 - SeaweedFS puts them there, whatever TMPDIR says
PARTS = {
    "objects": "s3",
    "objects_master": "master",
    "objects_volume": "volume",
    "objects_filer": "filer",
    "objects_admin": "admin",
}
READ_ONLY_BELOW = 0.015  # half a percent early: what was free between two looks is not known


class Watch:
    """Decides when the object store is to be restarted.

    Args:
        restart: restarts it; False where that failed, and is to be tried again.
    """

    def __init__(self, restart: Callable[[], bool]) -> None:
        self._restart = restart
        self._was_full = False
        self._missing: Set[Path] = frozenset()

    def look(self, space: DiskSpace, missing: Set[Path]) -> None:
        """Takes note of the space and of the sockets that are missing.

        Restarts the store where there is room after there was none, or where a socket is missing twice, one look after another: a
        store that starts makes them anew.
        """
        if space.free_share < READ_ONLY_BELOW:
            self._was_full = True
        elif ((self._was_full and not space.is_full) or (missing & self._missing)) and self._restart():
            self._was_full, missing = False, frozenset()
        self._missing = missing


def program(home: Home) -> Program:
    """The watch as a process of its own, without what the command line imports: it stays at some 15 MiB."""
    return Program(
        name=NAME,
        command=[sys.executable, "-m", "vesta_local.engines.storage", str(home.root)],
        address="",
        is_healthy=lambda: True,
        state=lambda: state(home),
        directory=home.run,
    )


def state(home: Home) -> str:
    """How the home's disk is, for the table of programs."""
    return state_of(disk_space(home.data))


def state_of(space: DiskSpace) -> str:
    """One word, and what is left where that is little."""
    word = "full" if space.is_full else "low" if space.is_low else "healthy"
    return f"{word}: {space.free_share:.0%} free" if space.is_low else word


def sockets(home: Home) -> frozenset[Path]:
    """The sockets over which the object store's parts talk."""
    return frozenset(
        SOCKETS / f"seaweedfs-{part}-grpc-{home.ports[door] + TWIN_OFFSET}.sock" for door, part in PARTS.items()
    )


def watch(home: Home) -> None:
    """Looks every other second, for ever."""
    look = Watch(lambda: _restart_objects(home)).look
    while True:
        look(disk_space(home.data), frozenset(path for path in sockets(home) if not path.exists()))
        time.sleep(INTERVAL.total_seconds())


def _restart_objects(home: Home) -> bool:
    command = [sys.executable, "-m", "vesta_local", "--home", str(home.root), "restart", "objects"]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    watch(Home(Path(sys.argv[1])))
