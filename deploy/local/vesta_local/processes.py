"""The processes of a local platform: how they are recognised, measured and killed."""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import psutil

from vesta_local.home import Home

EXIT_TIMEOUT = timedelta(seconds=2)
"""How long the children of a stopped program may take to exit by themselves."""
_REAPING_SECONDS = 0.01
HOME_MARK = "VESTA_LOCAL_HOME"
"""The environment variable that identifies the processes of a home, in case supervisord was killed."""


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


def kill_all(processes: Sequence[psutil.Process]) -> None:
    """Kills the processes that are still running, and waits until they have exited."""
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    await_exit(processes, EXIT_TIMEOUT)


def await_exit(processes: Sequence[psutil.Process], timeout: timedelta) -> list[psutil.Process]:
    """Waits until processes have exited; returns those that still run after the timeout."""
    deadline = time.monotonic() + timeout.total_seconds()
    while True:
        with suppress(
            FileNotFoundError
        ):  # Linux 6.18 raises it for a process that is being reaped, which psutil 7.2 does not expect
            return psutil.wait_procs(list(processes), timeout=max(deadline - time.monotonic(), 0))[1]
        time.sleep(_REAPING_SECONDS)
