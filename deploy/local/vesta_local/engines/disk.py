"""Watches the disk that the platform's state lies on, and restarts the object store once there is room on it again.

SeaweedFS stops writing while less than 1 % is free, looks again once a minute, and cannot be told to look sooner. Started anew, it
writes within a second.
"""

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from vesta_common.disk_space import DiskSpace, disk_space

from vesta_local.home import Home
from vesta_local.program import Program

NAME = "disk"
INTERVAL = timedelta(seconds=2)
READ_ONLY_BELOW = 0.015  # half a percent early: what was free between two looks is not known


class Watch:
    """Decides when the object store is to be restarted.

    Args:
        restart: restarts it; False where that failed, and is to be tried again.
    """

    def __init__(self, restart: Callable[[], bool]) -> None:
        self._restart = restart
        self._was_full = False

    def look(self, space: DiskSpace) -> None:
        """Takes note of the space; restarts the store where it came back after it was gone."""
        if space.free_share < READ_ONLY_BELOW:
            self._was_full = True
        elif self._was_full and not space.is_full:
            self._was_full = not self._restart()


def program(home: Home) -> Program:
    """The watch as a process of its own, without what the command line imports: it stays at some 15 MiB."""
    return Program(
        name=NAME,
        command=[sys.executable, "-m", "vesta_local.engines.disk", str(home.root)],
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


def watch(home: Home) -> None:
    """Looks at the disk every other second, for ever."""
    look = Watch(lambda: _restart_objects(home)).look
    while True:
        look(disk_space(home.data))
        time.sleep(INTERVAL.total_seconds())


def _restart_objects(home: Home) -> bool:
    command = [sys.executable, "-m", "vesta_local", "--home", str(home.root), "restart", "objects"]
    return subprocess.run(command, check=False).returncode == 0


if __name__ == "__main__":
    watch(Home(Path(sys.argv[1])))
