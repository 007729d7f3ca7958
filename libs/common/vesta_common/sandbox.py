"""Runs pure functions on untrusted bytes in child processes with limits on memory and time; a child that dies fails one call."""

import multiprocessing
import resource
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from typing import Any, TypeVar, cast

from vesta_common.errors import InvalidArgument, VestaError

T = TypeVar("T")

PROCESSES = 2
MEMORY_BYTES_MAX = 1536 * 1024 * 1024
CPU_SECONDS_MAX = 20
TIMEOUT = timedelta(seconds=60)
CHUNK_CALLS = 8


class Sandbox:
    """A pool of children. Safe to share between threads.

    Args:
        processes: how many children.
        memory_bytes_max: address space of each child.
        cpu_seconds_max: processor time of one call.
    """

    def __init__(
        self,
        processes: int = PROCESSES,
        memory_bytes_max: int = MEMORY_BYTES_MAX,
        cpu_seconds_max: int = CPU_SECONDS_MAX,
    ) -> None:
        self._processes = processes
        self._limits = (memory_bytes_max, cpu_seconds_max)
        self._lock = threading.Lock()
        self._pool = self._new_pool()

    def run(self, function: Callable[[Any], T], argument: Any, timeout: timedelta = TIMEOUT) -> T:
        """The function's answer for one argument.

        Raises:
            InvalidArgument: IMAGE_TOO_COSTLY where the child died or took too long.
            VestaError: whatever the function raised.
        """
        pool = self._pool
        try:
            outcome: Any = self._submit(pool, function, [argument]).result(timeout.total_seconds())[0]
        except (BrokenProcessPool, FutureTimeout) as error:
            self._heal(pool)
            raise _too_costly() from error
        if isinstance(outcome, VestaError):
            raise outcome
        return cast("T", outcome)

    def map(
        self, function: Callable[[Any], T], arguments: Sequence[Any], timeout: timedelta = TIMEOUT
    ) -> list[T | VestaError]:
        """The function's answers in order, or what it raised; an argument that kills its child costs no other its answer."""
        pool = self._pool
        chunks = [arguments[start : start + CHUNK_CALLS] for start in range(0, len(arguments), CHUNK_CALLS)]
        try:
            waiting = [self._submit(pool, function, chunk) for chunk in chunks]
            outcomes = [self._outcomes(future, timeout) for future in waiting]
        except BrokenProcessPool:
            outcomes = [None] * len(chunks)
        if None in outcomes:
            self._heal(pool)
        answers: list[T | VestaError] = []
        for chunk, found in zip(chunks, outcomes, strict=True):
            answers += found if found is not None else [self._alone(function, argument, timeout) for argument in chunk]
        return answers

    def close(self) -> None:
        """Ends the children."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(
        self, pool: ProcessPoolExecutor, function: Callable[[Any], T], chunk: Sequence[Any]
    ) -> "Future[list[Any]]":
        return pool.submit(_run_limited, function, chunk, self._limits[1])

    def _outcomes(self, future: "Future[list[Any]]", timeout: timedelta) -> list[Any] | None:
        try:
            return future.result(timeout.total_seconds())
        except (BrokenProcessPool, FutureTimeout):
            return None

    def _alone(self, function: Callable[[Any], T], argument: Any, timeout: timedelta) -> T | VestaError:
        try:
            return self.run(function, argument, timeout)
        except VestaError as error:
            return error

    def _heal(self, broken: ProcessPoolExecutor) -> None:
        """Replaces a broken pool, once."""
        with self._lock:
            if self._pool is broken:
                self._pool = self._new_pool()
                for child in list((getattr(broken, "_processes", None) or {}).values()):
                    child.kill()
                broken.shutdown(wait=False, cancel_futures=True)

    def _new_pool(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self._processes,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_limit_memory,
            initargs=(self._limits[0],),
        )


def _limit_memory(memory_bytes_max: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _run_limited(function: Callable[[Any], Any], chunk: Sequence[Any], cpu_seconds_max: int) -> list[Any]:
    """Runs the calls, each within its own time; what our own errors say travels back, memory errors as IMAGE_TOO_COSTLY."""
    answers: list[Any] = []
    for argument in chunk:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        spent = int(usage.ru_utime + usage.ru_stime)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        resource.setrlimit(resource.RLIMIT_CPU, (spent + cpu_seconds_max + 1, hard))
        try:
            answers.append(function(argument))
        except VestaError as error:
            answers.append(error)
        except MemoryError:
            answers.append(_too_costly())
    return answers


def _too_costly() -> InvalidArgument:
    return InvalidArgument(
        "decoding the image takes more memory or time than is allowed; send a smaller one", reason="IMAGE_TOO_COSTLY"
    )
