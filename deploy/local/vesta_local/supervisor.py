"""Manages processes with supervisord, which restarts programs that exit, writes their logs, and stops them."""

import http.client
import os
import shlex
import signal
import subprocess
import sys
import time
import xmlrpc.client
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from vesta_local.home import Home, write_secret
from vesta_local.program import Program

START_TIMEOUT = timedelta(seconds=15)
STOP_TIMEOUT = timedelta(seconds=30)
# How long the children of a stopped program may take to exit by themselves.
CHILDREN_TIMEOUT = timedelta(seconds=2)
LOG_BYTES_MAX = 10 * 1024 * 1024
LOG_BACKUPS = 3
# supervisord gives up after this many failed starts, which must not happen here.
RETRIES = 1_000_000
# This environment variable identifies the processes of a home, in case supervisord was killed.
HOME_MARK = "VESTA_LOCAL_HOME"
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
        found = self._proxy.getAllProcessInfo()
        return [ProcessState(entry["name"], entry["statename"], entry["pid"]) for entry in found]

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
        psutil.wait_procs(family, timeout=CHILDREN_TIMEOUT.total_seconds())
        _end(family)
        _quietly(self._proxy.shutdown)
        psutil.wait_procs(supervisord, timeout=STOP_TIMEOUT.total_seconds())
        _end(supervisord)
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
        _end(orphans)
        if self._child:
            self._child.wait()
            self._child = None
        self._socket.unlink(missing_ok=True)
        return bool(orphans)

    def _write(self, programs: Sequence[Program]) -> None:
        home = self._home
        parts = [
            f"[unix_http_server]\nfile={_escaped(str(self._socket))}\nchmod=0600\n",
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
            "[supervisord]\nsilent=true\nnocleanup=true\nminfds=4096\nidentifier=vesta\n",
            f"logfile={_escaped(str(home.logs / 'supervisord.log'))}\n",
            f"logfile_maxbytes={LOG_BYTES_MAX}\nlogfile_backups={LOG_BACKUPS}\n",
            f"pidfile={_escaped(str(home.run / 'supervisord.pid'))}\n",
        ]
        parts += [self._section(program) for program in programs]
        write_secret(self._configuration, "".join(parts))

    def _section(self, program: Program) -> str:
        variables = {**program.environment, HOME_MARK: str(self._home.root)}
        lines = {
            "command": " ".join(_quoted(part) for part in program.command),
            "environment": ",".join(f"{name}={_quoted_plainly(value)}" for name, value in variables.items()),
            "directory": _escaped(str(program.directory or self._home.root)),
            "autostart": "false",
            "autorestart": "true",
            "startsecs": "0",
            "startretries": RETRIES,
            "stopsignal": program.stop_signal,
            "stopwaitsecs": program.stop_wait_seconds,
            "redirect_stderr": "true",
            "stdout_logfile": _escaped(str(self._home.logs / f"{program.name}.log")),
            "stdout_logfile_maxbytes": LOG_BYTES_MAX,
            "stdout_logfile_backups": LOG_BACKUPS,
        }
        return f"[program:{program.name}]\n" + "".join(f"{key}={value}\n" for key, value in lines.items())


def is_marked(process: psutil.Process, home: Home) -> bool:
    """Whether a process belongs to a home, by its environment or, if that is not readable, by its command line.

    Raises:
        psutil.Error: the process has exited, or belongs to another user.
    """
    try:
        return process.environ().get(HOME_MARK) == str(home.root)
    except psutil.AccessDenied:
        return mark_option(home) in process.cmdline()


def mark_option(home: Home) -> str:
    """Returns the mark as an option for Python's `-X`, which accepts any name and value."""
    return f"{HOME_MARK.lower()}={home.root}"


def family_of(pid: int) -> list[psutil.Process]:
    """Returns a process and its descendants; empty if it has exited."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory_bytes(pid: int, *, family: bool = True) -> int:
    """Returns the memory of a process and, with `family`, of its descendants; 0 if it has exited.

    Divides shared memory among the processes that share it. Processes whose memory is not readable by their own user, such as those
    with a sandbox, count with their resident set size.
    """
    total = 0
    for member in family_of(pid) if family else family_of(pid)[:1]:
        with suppress(psutil.NoSuchProcess):
            try:
                total += member.memory_full_info().pss
            except psutil.AccessDenied:
                total += member.memory_info().rss
    return total


def _end(processes: Sequence[psutil.Process]) -> None:
    """Kills the processes that are still running, and waits until they have exited."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(list(processes), timeout=CHILDREN_TIMEOUT.total_seconds())


def _quietly(call: Callable[[], object]) -> None:
    """Makes a call whose response may be lost because the process exits."""
    try:
        call()
    except (xmlrpc.client.Fault, *_GONE):
        return


def _escaped(value: str) -> str:
    return value.replace("%", "%%")


def _quoted(value: str) -> str:
    """Quotes a word of a command, which supervisord parses like a shell."""
    return _escaped(shlex.quote(value))


def _quoted_plainly(value: str) -> str:
    """Quotes a value of supervisord's `environment`, which has no escape characters.

    Raises:
        ValueError: the value contains both kinds of quotes.
    """
    quote = '"' if '"' not in value else "'"
    if quote in value:
        raise ValueError(f"a value with both kinds of quotes cannot be passed to supervisord: {value}")
    return f"{quote}{_escaped(value)}{quote}"
