"""Watches the disk space and the sockets of the object store, and restarts the store when it cannot recover by itself.

SeaweedFS stops writing while less than 1 % of the disk is free, and checks again only once a minute. Its components communicate over
sockets in /tmp; if these are deleted, it never writes again. After a restart it writes within a second in both cases.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Set
from datetime import timedelta
from pathlib import Path

from vesta_common.disk_space import DiskSpace, disk_space

from vesta_local.home import Home
from vesta_local.ports import GRPC_PORT_OFFSET
from vesta_local.program import Program

NAME = "storage"
INTERVAL = timedelta(seconds=2)
SOCKETS = Path("/tmp")  # noqa: S108 - SeaweedFS always creates them there, regardless of TMPDIR
PARTS = {
    "objects": "s3",
    "objects_master": "master",
    "objects_volume": "volume",
    "objects_filer": "filer",
    "objects_admin": "admin",
}
READ_ONLY_BELOW = 0.015  # above SeaweedFS's limit of 1 %, because the free space between two checks is unknown


class StorageWatchdog:
    """Decides when to restart the object store.

    Args:
        restart: restarts it; returns False if the restart failed and must be retried.
    """

    def __init__(self, restart: Callable[[], bool]) -> None:
        self._restart = restart
        self._was_full = False
        self._missing: Set[Path] = frozenset()

    def check(self, space: DiskSpace, missing: Set[Path]) -> None:
        """Records the disk space and the missing sockets, and restarts the store if needed.

        Restarts the store if space is available after there was none, or if a socket is missing in two consecutive checks: a store that
        is starting creates its sockets soon.
        """
        if space.free_share < READ_ONLY_BELOW:
            self._was_full = True
        elif ((self._was_full and not space.is_full) or (missing & self._missing)) and self._restart():
            self._was_full, missing = False, frozenset()
        self._missing = missing


def program(home: Home) -> Program:
    """Returns the program, a process that does not import the command line, to use only about 15 MiB."""
    return Program(
        name=NAME,
        command=[sys.executable, "-m", "vesta_local.engines.storage", str(home.root)],
        address="",
        is_healthy=lambda: True,
        state=lambda: state(home),
        directory=home.run,
    )


def state(home: Home) -> str:
    """Returns the state of the home's disk for the table of programs."""
    return state_of(disk_space(home.data))


def state_of(space: DiskSpace) -> str:
    """Returns the state as one word, with the free share if it is low."""
    state = "full" if space.is_full else "low" if space.is_low else "healthy"
    return f"{state}: {space.free_share:.0%} free" if space.is_low else state


def sockets(home: Home) -> frozenset[Path]:
    """Returns the sockets of the object store's components."""
    return frozenset(
        SOCKETS / f"seaweedfs-{part}-grpc-{home.ports[listener] + GRPC_PORT_OFFSET}.sock"
        for listener, part in PARTS.items()
    )


def run(home: Home) -> None:
    """Checks every two seconds, forever."""
    check = StorageWatchdog(lambda: _restart_objects(home)).check
    while True:
        check(disk_space(home.data), frozenset(path for path in sockets(home) if not path.exists()))
        time.sleep(INTERVAL.total_seconds())


def _restart_objects(home: Home) -> bool:
    command = [sys.executable, "-m", "vesta_local", "--home", str(home.root), "restart", "objects"]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    run(Home(Path(sys.argv[1])))
