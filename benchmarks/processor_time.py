"""Processor time of the programs of a platform, and of everything else on the machine."""

import os
import time
from collections.abc import Iterator, Mapping

import psutil
from vesta_local.platform import Platform

INTERVAL_SECONDS_MIN = 1.0
CLIENTS = "clients"
IDLE_CORES_MAX = 0.4
"""A platform that uses less has nothing to do; health checks, heartbeats and polls take about a tenth of a core."""
IDLE_PATIENCE_SECONDS = 60.0


class ProcessorTime:
    """Processor time of each program of a platform since the creation of this object.

    The children of a program are counted apart from it: decoders of serving, models of Triton, connections of PostgreSQL.
    """

    def __init__(self, platform: Platform) -> None:
        self._pids = {name: platform.supervisor.pid(name) for name in platform.names}
        self._start = self._seconds()

    def milliseconds(self, count: int) -> dict[str, float]:
        """Returns the milliseconds of each program per unit of `count` units of work, the largest first."""
        spent = {
            name: 1000 * (seconds - self._start.get(name, 0.0)) / count for name, seconds in self._seconds().items()
        }
        return dict(sorted(spent.items(), key=lambda entry: -entry[1]))

    def _seconds(self) -> dict[str, float]:
        seconds = {CLIENTS: time.process_time()}
        for name, pid in self._pids.items():
            program = psutil.Process(pid)
            seconds[name] = _own_seconds(program)
            children = seconds_of(program) - seconds[name]
            if children:
                seconds[f"{name}: children"] = children
        return seconds


def await_idle(platform: Platform, cores_max: float = IDLE_CORES_MAX) -> None:
    """Waits until a platform has nothing to do, for at most a minute. Work that follows a loop would slow what is measured next."""
    deadline = time.monotonic() + IDLE_PATIENCE_SECONDS
    while time.monotonic() < deadline:
        used, began = ProcessorTime(platform), time.monotonic()
        time.sleep(INTERVAL_SECONDS_MIN)
        if sum(used.milliseconds(1000).values()) < cores_max * (time.monotonic() - began):
            return


class Outside:
    """Measures the cores that processes outside this one and its descendants use."""

    def __init__(self) -> None:
        self._time, self._seconds = time.monotonic(), _outside_seconds()
        self._cores = 0.0

    def cores(self) -> float:
        """Returns the mean number of cores since the last call that was at least `INTERVAL_SECONDS_MIN` ago."""
        now = time.monotonic()
        if now - self._time >= INTERVAL_SECONDS_MIN:
            seconds = _outside_seconds()
            self._cores = max(0.0, seconds - self._seconds) / (now - self._time)
            self._time, self._seconds = now, seconds
        return self._cores


def seconds_of(process: psutil.Process) -> float:
    """Returns the processor time of a process and its descendants, including those that have ended."""
    return sum(_with_ended(member) for member in _family(process))


def families_seconds(pids: Mapping[str, int]) -> dict[str, float]:
    """Returns the processor time of each program and its descendants so far."""
    return {name: seconds_of(psutil.Process(pid)) for name, pid in pids.items()}


def _outside_seconds() -> float:
    used = psutil.cpu_times()
    return float(used.user + used.nice + used.system) - seconds_of(psutil.Process(os.getpid()))


def _family(process: psutil.Process) -> Iterator[psutil.Process]:
    yield process
    yield from process.children(recursive=True)


def _own_seconds(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


def _with_ended(process: psutil.Process) -> float:
    """Returns the processor time of a process and of its children that have ended; 0 if it has ended itself."""
    try:
        return float(sum(process.cpu_times()[:4]))
    except psutil.NoSuchProcess:
        return 0.0
