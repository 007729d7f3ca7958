"""A pool of sandbox children for pure functions of bytes. Each call has memory and time limits; a crash fails only one call."""

import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, TypeVar

import structlog

from vesta_common.errors import Internal, VestaError
from vesta_common.memory_limit import memory_limit_bytes
from vesta_common.sandbox.child import too_costly
from vesta_common.sandbox.process import (
    Child,
    Limits,
    StartError,
    hide_this_process,
    killed,
    log_missing,
    not_started,
)
from vesta_common.sandbox.shares import MIB, shared

T = TypeVar("T")
R = TypeVar("R")

PROCESSES = 2
TIMEOUT = timedelta(seconds=60)
CHUNK_CALLS_MAX = 8
CHUNK_BYTES_MAX = 2 * 1024 * 1024

log = structlog.get_logger()


class Sandbox:
    """A pool of sandbox children. Thread-safe.

    On creation it hides this process's memory and environment from other processes of its user (PR_SET_DUMPABLE), and logs the protections
    that the kernel does not support (`sandbox_protection_missing`).

    Args:
        processes: number of children, which is the number of concurrent calls. Reduced if the pod's memory is too small.
        limits: limits of each child. The memory limit is reduced if the pod's memory is limited.
        modules: modules of the functions that calls run, with all that they import. Children cannot read files after start.
        memory_bytes: the pod's memory limit; None to read it from the control groups.
    """

    def __init__(
        self,
        processes: int = PROCESSES,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        modules: Sequence[str] = ("vesta_common.media.images",),
        memory_bytes: int | None = None,
    ) -> None:
        processes, limits = shared(memory_bytes or memory_limit_bytes(), processes, limits)
        log.info("sandbox_started", processes=processes, memory_mib_max=limits.memory_bytes_max // MIB)
        self._processes = processes
        self._limits = limits
        self._modules = tuple(modules)
        self._idle: SimpleQueue[Child | None] = SimpleQueue()  # after `close`, None for those that wait for a child
        self._children: set[Child] = set()
        self._guard = threading.Lock()
        self._closed = False
        self._missing = hide_this_process()
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="sandbox")
        for _ in range(processes):
            self._idle.put(self._started())
        self._threads.submit(self._log_missing)

    def run(self, function: Callable[[Any], T], argument: Any, timeout: timedelta = TIMEOUT) -> T:
        """Runs a function for one argument and returns its result.

        Args:
            function: a function of one of the sandbox's modules, or a built-in function.
            timeout: measured from when a child is available.

        Raises:
            InvalidArgument: IMAGE_TOO_EXPENSIVE, the call exceeded its memory or time limit, or its child died of it.
            VestaError: any VestaError of the function; Internal (SANDBOX_FAILED) for other errors, SANDBOX_CLOSED after `close`.
        """
        # In the caller's thread: waking another one, and this one again, takes longer than the rest of a call's overhead.
        (result,) = self._run_chunk(function, [argument], range(1), lambda _, result: result, timeout)
        if isinstance(result, VestaError):
            raise result
        return result

    def map(
        self, function: Callable[[Any], T], arguments: Sequence[Any], timeout: timedelta = TIMEOUT
    ) -> list[T | VestaError]:
        """Runs a function for each argument. Returns results or errors in order. An argument that kills its child affects no others.

        Args:
            timeout: per call.
        """
        return self.map_on(function, arguments, lambda _, result: result, timeout)

    def map_on(
        self,
        function: Callable[[Any], T],
        arguments: Sequence[Any],
        then: Callable[[int, T | VestaError], R],
        timeout: timedelta = TIMEOUT,
    ) -> list[R]:
        """Like `map`, but passes each result to `then` immediately and keeps only its return value: one result per child is in memory.

        Args:
            then: receives the index of an argument and its result. Runs in a thread of this process while the child continues. It may
                block, which throttles the child.
            timeout: per call.

        Raises:
            Internal: SANDBOX_CLOSED.
        """
        try:
            chunks = [
                self._threads.submit(self._run_chunk, function, arguments, chunk, then, timeout)
                for chunk in _chunks(arguments)
            ]
            return [result for chunk in chunks for result in chunk.result()]
        except (CancelledError, RuntimeError) as error:
            if self._closed:
                raise _closed() from error
            raise

    def close(self) -> None:
        """Kills the children immediately. Waiting calls fail with SANDBOX_CLOSED."""
        with self._guard:
            if self._closed:
                return
            self._closed = True
            children = [*self._children]
        for child in children:
            child.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for _ in range(self._processes):  # each child is idle, or its call is about to fail
            self._taken().release()
        self._idle.put(None)

    def _run_chunk(
        self,
        function: Callable[[Any], T],
        arguments: Sequence[Any],
        chunk: range,
        then: Callable[[int, T | VestaError], R],
        timeout: timedelta,
    ) -> list[R]:
        """Runs the calls of a chunk in order. If a child dies, the remaining calls run in a new child.

        The call during which a child dies fails. If the child was killed from outside, the call is retried once.
        """
        results: list[R] = []
        killed_before = False
        child = self._taken()
        try:
            while len(results) < len(chunk):
                remaining = chunk[len(results) :]
                if not child.is_alive():
                    child = self._replaced(child)
                try:
                    for index, result in zip(
                        remaining, child.call(function, [arguments[i] for i in remaining], timeout), strict=True
                    ):
                        results.append(then(index, result))
                        killed_before = False
                except StartError as error:
                    log.warning("sandbox_child_failed", error=str(error))
                    child.kill()
                    results.append(then(chunk[len(results)], not_started(error)))
                except (OSError, EOFError, pickle.UnpicklingError) as error:
                    log.warning("sandbox_child_lost", error=repr(error), calls=len(remaining))
                    was_killed = child.was_killed()
                    child = self._replaced(child)
                    if not was_killed:
                        results.append(then(chunk[len(results)], too_costly("memory or time")))
                    elif killed_before:
                        results.append(then(chunk[len(results)], killed()))
                    killed_before = was_killed and not killed_before
        except BaseException:
            child.kill()  # it may be sending a result
            raise
        finally:
            self._idle.put(child)
        return results

    def _log_missing(self) -> None:
        """Waits until one child is confined, then logs its missing protections. They are the same for all children."""
        child = self._taken()
        try:
            log_missing({**self._missing, **child.await_start()})
        except StartError as error:
            log.warning("sandbox_child_failed", error=str(error))
        finally:
            self._idle.put(child)

    def _taken(self) -> Child:
        """Waits for an idle child.

        Raises:
            Internal: SANDBOX_CLOSED.
        """
        child = self._idle.get()
        if child is None:
            self._idle.put(None)
            raise _closed()
        return child

    def _started(self) -> Child:
        with self._guard:
            if self._closed:
                raise _closed()
            child = Child(self._limits, self._modules)
            self._children.add(child)
            return child

    def _replaced(self, child: Child) -> Child:
        child.kill()
        started = self._started()
        self._children.discard(child)
        child.release()
        return started


def _closed() -> Internal:
    return Internal("the sandbox is closed", reason="SANDBOX_CLOSED")


def _chunks(arguments: Sequence[Any]) -> list[range]:
    """Groups argument indices into chunks: large enough for low overhead per call, small enough to keep all children busy."""
    chunks: list[range] = []
    start = size_bytes = 0
    for index, argument in enumerate(arguments):
        argument_bytes = len(argument) if isinstance(argument, bytes | memoryview) else 0
        if index - start == CHUNK_CALLS_MAX or (index > start and size_bytes + argument_bytes > CHUNK_BYTES_MAX):
            chunks.append(range(start, index))
            start, size_bytes = index, 0
        size_bytes += argument_bytes
    return [*chunks, range(start, len(arguments))]
