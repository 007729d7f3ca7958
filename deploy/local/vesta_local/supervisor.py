"""supervisord keeps the processes: restarts what dies, keeps logs by program, stops what it started."""

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
# How long the children of a program that ended may take to end by themselves.
CHILDREN_TIMEOUT = timedelta(seconds=2)
LOG_BYTES_MAX = 10 * 1024 * 1024
LOG_BACKUPS = 3
# supervisord gives a program up after so many starts that failed; nobody is to give up here.
RETRIES = 1_000_000
# By this variable a process is known as one of ours when its supervisord was killed.
HOME_MARK = "VESTA_LOCAL_HOME"
_ALIVE = {"RUNNING", "STARTING", "STOPPING", "BACKOFF"}
_POLL_SECONDS = 0.05
_GONE = (OSError, http.client.HTTPException)


@dataclass(frozen=True)
class ProcessState:
    """How supervisord sees a program; its pid is 0 where it does not run."""

    name: str
    state: str
    pid: int


class ExitCounter:
    """Counts the exits of programs by comparing successive states: a program whose process is another one, or gone, has exited.

    Attributes:
        counts: exits since the first observation, by program. Lives that begin and end between two observations are not seen.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._pids: dict[str, int] = {}

    def observe(self, states: Sequence[ProcessState]) -> None:
        """Takes in how all programs are now."""
        for state in states:
            before = self._pids.get(state.name, 0)
            if before and state.pid != before:
                self.counts[state.name] += 1
            self._pids[state.name] = state.pid


class Supervisor:
    """The supervisord of one home.

    Args:
        bound: whether it is to end when this process does; else it outlives it.
    """

    def __init__(self, home: Home, *, bound: bool = False) -> None:
        self._home = home
        self._bound = bound
        self._child: subprocess.Popen[bytes] | None = None
        self._socket = home.sockets / "supervisor.sock"
        self._configuration = home.run / "supervisord.conf"

    @property
    def _proxy(self) -> Any:
        """A connection of its own for each call: the transport is not for several threads, and does not mend once it broke."""
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        return xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport).supervisor

    def is_running(self) -> bool:
        """Whether supervisord answers."""
        try:
            self._proxy.getState()
        except _GONE:
            return False
        return True

    def start(self, programs: Sequence[Program]) -> None:
        """Starts supervisord with these programs, none of them running yet.

        Raises:
            RuntimeError: it does not answer; names its log.
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
                raise RuntimeError(f"supervisord does not answer; see {self._home.logs / 'supervisord.log'}")
            time.sleep(_POLL_SECONDS)

    def update(self, programs: Sequence[Program]) -> None:
        """Tells a running supervisord of what has changed; what runs otherwise than it should is stopped, to be started anew."""
        self._write(programs)
        [[added, changed, removed]] = self._proxy.reloadConfig()
        for name in (*changed, *removed):
            self._proxy.stopProcessGroup(name)
            self._proxy.removeProcessGroup(name)
        for name in (*added, *changed):
            self._proxy.addProcessGroup(name)

    def run(self, name: str) -> None:
        """Starts a program, unless it runs."""
        try:
            self._proxy.startProcess(name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.ALREADY_STARTED:
                raise

    def states(self) -> list[ProcessState]:
        """Every program's state, in the order of the configuration."""
        found = self._proxy.getAllProcessInfo()
        return [ProcessState(entry["name"], entry["statename"], entry["pid"]) for entry in found]

    def pid(self, name: str) -> int:
        """A program's process; 0 where it does not run."""
        return int(self._proxy.getProcessInfo(name)["pid"])

    def own_pid(self) -> int:
        """The process of supervisord itself."""
        return int(self._proxy.getPID())

    def kill(self, name: str, with_signal: signal.Signals = signal.SIGKILL) -> int:
        """Kills a program's process, or asks it to end; supervisord starts it again. Answers its pid, 0 where none ran."""
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
                return  # what is left is killed
            time.sleep(_POLL_SECONDS)

    def end_orphans(self) -> bool:
        """Ends what a supervisord that was killed left behind: processes that carry this home's mark.

        Returns:
            Whether there were any.
        """
        orphans = []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and is_marked(process, self._home):
                    orphans += family_of(process.pid)
            except psutil.Error:
                continue  # it is gone, or somebody else's
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
    """Whether a process belongs to a home's platform, by its environment or, where it keeps that from others, by its command line.

    Raises:
        psutil.Error: it is gone, or somebody else's.
    """
    try:
        return process.environ().get(HOME_MARK) == str(home.root)
    except psutil.AccessDenied:
        return mark_option(home) in process.cmdline()


def mark_option(home: Home) -> str:
    """The mark as an option of Python's `-X`, which takes any name and value."""
    return f"{HOME_MARK.lower()}={home.root}"


def family_of(pid: int) -> list[psutil.Process]:
    """A process and all below it; empty where it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory_bytes(pid: int, *, family: bool = True) -> int:
    """Memory of a process and, with `family`, of all below it. 0 where it is gone.

    What is shared is divided among the sharers, but for processes that keep their memory from others of their user, such as those
    with a sandbox: theirs counts wholly.
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
    """Kills what is left of these and waits until it is gone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(list(processes), timeout=CHILDREN_TIMEOUT.total_seconds())


def _quietly(call: Callable[[], object]) -> None:
    """A call whose answer may get lost because its addressee ends."""
    try:
        call()
    except (xmlrpc.client.Fault, *_GONE):
        return


def _escaped(value: str) -> str:
    return value.replace("%", "%%")


def _quoted(value: str) -> str:
    """A word as supervisord reads commands: by the shell's rules."""
    return _escaped(shlex.quote(value))


def _quoted_plainly(value: str) -> str:
    """A value as supervisord reads environments: between quotes, of which it knows no escape.

    Raises:
        ValueError: the value has both kinds of quotes.
    """
    quote = '"' if '"' not in value else "'"
    if quote in value:
        raise ValueError(f"supervisord cannot be told a value with both kinds of quotes: {value}")
    return f"{quote}{_escaped(value)}{quote}"
