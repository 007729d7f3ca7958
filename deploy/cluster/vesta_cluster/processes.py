"""The processes of a cluster: started detached with a log, recorded by pid and start time, and stopped only by this record."""

import json
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from vesta_cluster.errors import ClusterError


@dataclass(frozen=True)
class Processes:
    """The processes with records in a folder.

    Attributes:
        folder: of the records and the logs, `NAME.json` and `NAME.log`.
        stop_seconds: the time of a process to exit before it is killed.
    """

    folder: Path
    stop_seconds: float = 5.0

    def start(self, name: str, command: Sequence[str], path: str | None = None) -> None:
        """Starts a detached process. `path` replaces the environment variable `PATH`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, **({"PATH": path} if path else {})}
        output = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        pid = os.posix_spawnp(
            command[0],
            list(command),
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self.log(name)), output, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        record = {"pid": pid, "started": psutil.Process(pid).create_time()}
        self._record(name).write_text(json.dumps(record))

    def find(self, name: str) -> psutil.Process | None:
        """Returns the process if it is running."""
        try:
            record = json.loads(self._record(name).read_text())
            process = psutil.Process(record["pid"])
            is_it = process.create_time() == record["started"] and process.status() != psutil.STATUS_ZOMBIE
        except (FileNotFoundError, psutil.NoSuchProcess):
            return None
        return process if is_it else None

    def check(self, name: str) -> None:
        """Raises ClusterError with the end of its log if a process has exited."""
        if self.find(name) is None:
            last = self.log(name).read_text(errors="replace").strip().splitlines()[-5:]
            raise ClusterError(f"{name} ended; the end of {self.log(name)}:\n" + "\n".join(last))

    def stop(self, name: str, signal_number: int = signal.SIGTERM) -> None:
        """Stops a process, if it is running. Kills it after `stop_seconds`."""
        process = self.find(name)
        if process is not None:
            process.send_signal(signal_number)
            try:
                process.wait(self.stop_seconds)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(self.stop_seconds)
        self._record(name).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """Returns the processes that were started and not stopped."""
        return sorted(path.stem for path in self.folder.glob("*.json"))

    def log(self, name: str) -> Path:
        """Returns the log of a process."""
        return self.folder / f"{name}.log"

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.json"
