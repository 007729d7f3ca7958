"""supervisord keeps the processes: restarts what dies, keeps logs by program, stops what it started."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import xmlrpc.client
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport

from vesta_local.home import Home
from vesta_local.program import Program

START_TIMEOUT = timedelta(seconds=15)
STOP_TIMEOUT = timedelta(seconds=30)
LOG_BYTES_MAX = 10 * 1024 * 1024
LOG_BACKUPS = 3
# supervisord gives a program up after so many starts that fell within `startsecs`; nobody is to give up here.
RETRIES = 1_000_000
_GONE = (ConnectionRefusedError, FileNotFoundError, socket.error, http.client.HTTPException)


@dataclass(frozen=True)
class ProcessState:
    """How supervisord sees a program."""

    name: str
    state: str
    pid: int
    up_seconds: int

    @property
    def memory_bytes(self) -> int:
        """Unique memory of the program and its children; 0 where it does not run."""
        try:
            process = psutil.Process(self.pid) if self.pid else None
            family = [process, *process.children(recursive=True)] if process else []
            return sum(member.memory_full_info().uss for member in family)
        except psutil.Error:
            return 0


class Supervisor:
    """The supervisord of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._socket = home.run / "supervisor.sock"
        self._configuration = home.run / "supervisord.conf"

    @property
    def _proxy(self) -> Any:
        """A connection of its own for each call: the transport is not for several threads, and does not mend once it broke."""
        return xmlrpc.client.ServerProxy(
            "http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{self._socket}")
        )

    def is_running(self) -> bool:
        """Whether supervisord answers."""
        try:
            self._proxy.supervisor.getState()
        except _GONE:
            return False
        return True

    def start(self, programs: Sequence[Program]) -> None:
        """Starts supervisord with these programs, none of them running yet. What a killed supervisord left behind is ended first.

        Raises:
            RuntimeError: it does not answer; names its log.
        """
        self._end_orphans()
        self._write(programs)
        command = [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._configuration)]
        subprocess.run(command, check=True, env=dict(os.environ), stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT.total_seconds()
        while not self.is_running():
            if time.monotonic() > deadline:
                raise RuntimeError(f"supervisord does not answer; see {self._home.logs / 'supervisord.log'}")
            time.sleep(0.05)

    def run(self, name: str) -> None:
        """Starts a program, unless it runs."""
        try:
            self._proxy.supervisor.startProcess(name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.ALREADY_STARTED:
                raise

    def states(self) -> list[ProcessState]:
        """Every program's state, in the order of the configuration."""
        return [
            ProcessState(entry["name"], entry["statename"], entry["pid"], max(0, entry["now"] - entry["start"]))
            for entry in self._proxy.supervisor.getAllProcessInfo()
        ]

    def pid(self, name: str) -> int:
        """A program's process; 0 where it does not run."""
        return int(self._proxy.supervisor.getProcessInfo(name)["pid"])

    def kill(self, name: str) -> int:
        """Kills a program with -9, children and all, as a crash would; supervisord starts it again. Answers the pid that died."""
        pid = self.pid(name)
        if pid:
            children = psutil.Process(pid).children(recursive=True)
            os.kill(pid, signal.SIGKILL)
            _end(children)
        return pid

    def stop(self, order: Sequence[Sequence[str]]) -> None:
        """Stops the programs, group by group, then supervisord; returns when no process is left."""
        known = [psutil.Process(state.pid) for state in self.states() if state.pid and psutil.pid_exists(state.pid)]
        family = [member for process in known for member in process.children(recursive=True)]
        there = {state.name for state in self.states()}
        for group in order:
            for name in group:
                if name in there:
                    self._quietly(lambda name=name: self._proxy.supervisor.stopProcess(name, False))
            self._await_stopped({name for name in group if name in there})
        pid = int(self._proxy.supervisor.getPID())
        self._quietly(self._proxy.supervisor.shutdown)
        _end([*known, *family])
        if psutil.pid_exists(pid):
            psutil.wait_procs([psutil.Process(pid)], timeout=STOP_TIMEOUT.total_seconds())

    def _await_stopped(self, names: set[str]) -> None:
        deadline = time.monotonic() + STOP_TIMEOUT.total_seconds()
        while any(
            state.name in names and state.state in {"RUNNING", "STARTING", "STOPPING"} for state in self.states()
        ):
            if time.monotonic() > deadline:
                return  # supervisord's own shutdown kills what is left
            time.sleep(0.05)

    def _quietly(self, call: Any) -> None:
        """A call whose answer may get lost because its addressee ends."""
        try:
            call()
        except (xmlrpc.client.Fault, *_GONE):
            return

    def _end_orphans(self) -> None:
        """Ends what a supervisord that was killed left behind: processes that carry this home's mark in their environment."""
        orphans = []
        for process in psutil.process_iter():
            try:
                if process.pid != os.getpid() and process.environ().get("VESTA_LOCAL_HOME") == str(self._home.root):
                    orphans.append(process)
            except psutil.Error:
                continue
        _end(orphans)
        self._socket.unlink(missing_ok=True)

    def _write(self, programs: Sequence[Program]) -> None:
        home = self._home
        parts = [
            f"[unix_http_server]\nfile={self._socket}\nchmod=0600\n",
            "[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n",
            "[supervisord]\nsilent=true\nnocleanup=true\nminfds=4096\nidentifier=vesta\n",
            f"logfile={home.logs / 'supervisord.log'}\nlogfile_maxbytes={LOG_BYTES_MAX}\nlogfile_backups={LOG_BACKUPS}\n",
            f"pidfile={home.run / 'supervisord.pid'}\n",
        ]
        parts += [self._section(program) for program in programs]
        self._configuration.touch(mode=0o600)
        self._configuration.write_text("\n".join(parts))

    def _section(self, program: Program) -> str:
        variables = {**program.environment, "VESTA_LOCAL_HOME": str(self._home.root)}
        environment = ",".join(f'{name}="{_escaped(value)}"' for name, value in variables.items())
        lines = {
            "command": " ".join(_quoted(part) for part in program.command),
            "environment": environment,
            "directory": str(program.directory or self._home.root),
            "autostart": "false",
            "autorestart": "true",
            "startsecs": "0",
            "startretries": str(RETRIES),
            "stopsignal": program.stop_signal,
            "stopwaitsecs": str(program.stop_wait_seconds),
            "stopasgroup": "false",
            "killasgroup": "true",
            "redirect_stderr": "true",
            "stdout_logfile": str(self._home.logs / f"{program.name}.log"),
            "stdout_logfile_maxbytes": str(LOG_BYTES_MAX),
            "stdout_logfile_backups": str(LOG_BACKUPS),
        }
        if program.user:
            lines["user"] = program.user
        return f"[program:{program.name}]\n" + "".join(f"{key}={value}\n" for key, value in lines.items())


def _end(processes: Sequence[psutil.Process]) -> None:
    """Kills what is left of these and waits until it is gone."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(list(processes), timeout=5)


def _escaped(value: str) -> str:
    return value.replace("%", "%%").replace('"', '\\"')


def _quoted(part: str) -> str:
    part = part.replace("%", "%%")
    return f"'{part}'" if " " in part else part
