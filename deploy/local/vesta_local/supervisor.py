"""Manages processes with supervisord, which restarts programs that exit, writes their logs, and stops them."""

import http.client
import os
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from vesta_local.home import Home
from vesta_local.processes import EXIT_TIMEOUT, HOME_MARK, await_exit, family_of, is_marked, kill_all
from vesta_local.program import Program
from vesta_local.secret_files import write_secret
from vesta_local.supervisor_configuration import configuration_of

START_TIMEOUT = timedelta(seconds=15)
STOP_TIMEOUT = timedelta(seconds=30)
_ALIVE = {"RUNNING", "STARTING", "STOPPING", "BACKOFF"}
_POLL_SECONDS = 0.05
_GONE = (OSError, http.client.HTTPException)


@dataclass(frozen=True)
class ProcessState:
    """The state of a program in supervisord; its pid is 0 if it is not running."""

    name: str
    state: str
    pid: int


class ExitCounter:
    """Counts the exits of programs by comparing successive states: a program with another pid, or none, has exited.

    Attributes:
        counts: exits since the first observation, by program. Misses processes that start and exit between two observations.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._pids: dict[str, int] = {}

    def observe(self, states: Sequence[ProcessState]) -> None:
        """Compares the current states with the previous ones."""
        for state in states:
            before = self._pids.get(state.name, 0)
            if before and state.pid != before:
                self.counts[state.name] += 1
            self._pids[state.name] = state.pid


class Supervisor:
    """The supervisord of one home.

    Args:
        bound: whether supervisord ends with this process; otherwise it continues to run.
    """

    def __init__(self, home: Home, *, bound: bool = False) -> None:
        self._home = home
        self._bound = bound
        self._child: subprocess.Popen[bytes] | None = None
        self._socket = home.sockets / "supervisor.sock"
        self._configuration = home.run / "supervisord.conf"

    @property
    def _proxy(self) -> Any:
        """A new connection for each call: the transport is not thread-safe, and unusable after an error."""
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def is_running(self) -> bool:
        """Whether supervisord responds."""
        try:
            self._proxy.getState()
        except _GONE:
            return False
        return True

    def start(self, programs: Sequence[Program]) -> None:
        """Starts supervisord with these programs, without starting the programs.

        Raises:
            RuntimeError: supervisord does not respond; names its log.
        """
        self._write(programs)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._configuration)]
        environment = {**os.environ, HOME_MARK: str(self._home.root)}
        if self._bound:
            command = ["setpriv", "--pdeathsig", "TERM", "--", *command, "--nodaemon"]
            self._child = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment)
        else:
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL, env=environment)
        deadline = time.monotonic() + START_TIMEOUT.total_seconds()
        while not self.is_running():
            if time.monotonic() > deadline:
                raise RuntimeError(f"supervisord does not respond; see {self._home.logs / 'supervisord.log'}")
            time.sleep(_POLL_SECONDS)

    def update(self, programs: Sequence[Program]) -> None:
        """Reloads the configuration of a running supervisord. Stops programs whose configuration has changed, for a later start."""
        self._write(programs)
        [[added, changed, removed]] = self._proxy.reloadConfig()
        for name in (*changed, *removed):
            self._proxy.stopProcessGroup(name)
            self._proxy.removeProcessGroup(name)
        for name in (*added, *changed):
            self._proxy.addProcessGroup(name)

    def run(self, name: str) -> None:
        """Starts a program, unless it is running."""
        try:
            self._proxy.startProcess(name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.ALREADY_STARTED:
                raise

    def states(self) -> list[ProcessState]:
        """Returns the state of every program, in the order of the configuration."""
        entries = self._proxy.getAllProcessInfo()
        return [ProcessState(entry["name"], entry["statename"], entry["pid"]) for entry in entries]

    def pid(self, name: str) -> int:
        """Returns the pid of a program; 0 if it is not running."""
        return int(self._proxy.getProcessInfo(name)["pid"])

    def own_pid(self) -> int:
        """Returns the pid of supervisord."""
        return int(self._proxy.getPID())

    def kill(self, name: str, with_signal: signal.Signals = signal.SIGKILL) -> int:
        """Sends a signal to a program, which supervisord then restarts; returns its pid, 0 if it was not running."""
        pid = self.pid(name)
        if pid:
            os.kill(pid, with_signal)
        return pid

    def stop(self, order: Sequence[Sequence[str]]) -> bool:
        """Stops the programs, group by group, then supervisord; returns True when no process is left."""
        states = self.states()
        family = [member for state in states if state.pid for member in family_of(state.pid)]
        supervisord = family_of(self.own_pid())[:1]
        for group in order:
            names = [state.name for state in states if state.name in group]
            for name in names:
                _quietly(partial(self._proxy.stopProcess, name, False))
            self._await_stopped(set(names))
        await_exit(family, EXIT_TIMEOUT)
        kill_all(family)
        _quietly(self._proxy.shutdown)
        await_exit(supervisord, STOP_TIMEOUT)
        kill_all(supervisord)
        self.end_orphans()
        return True

    def _await_stopped(self, names: set[str]) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT.total_seconds()
        while any(state.name in names and state.state in _ALIVE for state in self.states()):
            if time.monotonic() > deadline:
                return  # the caller kills the rest
            time.sleep(_POLL_SECONDS)

    def end_orphans(self) -> bool:
        """Kills the processes of this home that a killed supervisord left behind.

        Returns:
            Whether there were any.
        """
        orphans = []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and is_marked(process, self._home):
                    orphans += family_of(process.pid)
            except psutil.Error:
                continue  # the process has exited, or belongs to another user
        kill_all(orphans)
        if self._child:
            self._child.wait()
            self._child = None
        self._socket.unlink(missing_ok=True)
        return bool(orphans)

    def _write(self, programs: Sequence[Program]) -> None:
        write_secret(self._configuration, configuration_of(self._home, self._socket, programs))


def _quietly(call: Callable[[], object]) -> None:
    """Makes a call whose response may be lost because the process exits."""
    try:
        call()
    except (xmlrpc.client.Fault, *_GONE):
        return
