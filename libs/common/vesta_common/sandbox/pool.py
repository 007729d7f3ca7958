"""A pool of children for pure functions of bytes, each call limited in memory and time; a child that dies fails one call."""

import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, TypeVar

import structlog

from vesta_common.errors import Internal, VestaError
from vesta_common.memory_limit import memory_room_bytes
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
    """A pool of children. Safe to share between threads.

    It closes this process's own memory and environment to other processes of its user (PR_SET_DUMPABLE), and logs at its start
    which protections the kernel does not grant (`sandbox_protection_missing`).

    Args:
        processes: how many children, and so how many calls run at once; fewer where the memory of the pod is too small for as many.
        limits: of each child; less memory where that of the pod is limited.
        modules: those of the functions that it will run, and whatever else these import; a child cannot read files later.
        room_bytes: the memory of the pod; what its control groups say if None.
    """

    def __init__(
        self,
        processes: int = PROCESSES,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        modules: Sequence[str] = ("vesta_common.media.images",),
        room_bytes: int | None = None,
    ) -> None:
        processes, limits = shared(room_bytes or memory_room_bytes(), processes, limits)
        log.info("sandbox_shares", processes=processes, memory_mib_max=limits.memory_bytes_max // MIB)
        self._limits = limits
        self._modules = tuple(modules)
        self._idle: SimpleQueue[Child] = SimpleQueue()
        self._children: set[Child] = set()
        self._guard = threading.Lock()
        self._closed = False
        self._missing = hide_this_process()
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="sandbox")
        for _ in range(processes):
            self._idle.put(self._started())
        self._threads.submit(self._log_missing)

    def run(self, function: Callable[[Any], T], argument: Any, timeout: timedelta = TIMEOUT) -> T:
        """The function's answer for one argument.

        Args:
            function: of one of the sandbox's modules, or built in.
            timeout: from when a child is free for it.

        Raises:
            InvalidArgument: IMAGE_TOO_COSTLY where it took more memory or time than it may, or its child died of it.
            VestaError: whatever the function raised; Internal where that was no error of ours (SANDBOX_FAILED).
        """
        (answer,) = self.map(function, [argument], timeout)
        if isinstance(answer, VestaError):
            raise answer
        return answer

    def map(
        self, function: Callable[[Any], T], arguments: Sequence[Any], timeout: timedelta = TIMEOUT
    ) -> list[T | VestaError]:
        """The function's answers in order, or what it raised; an argument that kills its child costs no other its answer.

        Args:
            timeout: of one call.
        """
        return self.map_on(function, arguments, lambda _, answer: answer, timeout)

    def map_on(
        self,
        function: Callable[[Any], T],
        arguments: Sequence[Any],
        then: Callable[[int, T | VestaError], R],
        timeout: timedelta = TIMEOUT,
    ) -> list[R]:
        """As `map`, but hands each answer on at once and keeps what becomes of it: no more than one a child is ever in memory.

        Args:
            then: takes an argument's index and its answer, in a thread of ours, while the child goes on. It may block, and so
                hold the child back.
            timeout: of one call.

        Raises:
            Internal: SANDBOX_CLOSED.
        """
        try:
            chunks = [
                self._threads.submit(self._run_chunk, function, arguments, chunk, then, timeout)
                for chunk in _chunks(arguments)
            ]
            return [kept for chunk in chunks for kept in chunk.result()]
        except (CancelledError, RuntimeError) as error:
            if self._closed:
                raise _closed() from error
            raise

    def close(self) -> None:
        """Ends the children at once, whatever they do; who waits for one hears SANDBOX_CLOSED."""
        with self._guard:
            self._closed = True
            children = [*self._children]
        for child in children:
            child.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        while not self._idle.empty():
            self._idle.get().release()

    def _run_chunk(
        self,
        function: Callable[[Any], T],
        arguments: Sequence[Any],
        chunk: range,
        then: Callable[[int, T | VestaError], R],
        timeout: timedelta,
    ) -> list[R]:
        """Answers for all of a chunk, in order. The call at which the child dies is the one at fault; the rest go on in another."""
        kept: list[R] = []
        killed_before = False
        child = self._idle.get()
        try:
            while len(kept) < len(chunk):
                left = chunk[len(kept) :]
                if not child.is_alive():
                    child = self._replaced(child)
                try:
                    for index, answer in zip(
                        left, child.call(function, [arguments[i] for i in left], timeout), strict=True
                    ):
                        kept.append(then(index, answer))
                        killed_before = False
                except StartError as error:
                    log.warning("sandbox_child_failed", error=str(error))
                    child.kill()
                    kept.append(then(chunk[len(kept)], not_started(error)))
                except (OSError, EOFError, pickle.UnpicklingError) as error:
                    log.warning("sandbox_child_lost", error=repr(error), calls=len(left))
                    was_killed = child.was_killed()
                    child = self._replaced(child)
                    if not was_killed:
                        kept.append(then(chunk[len(kept)], too_costly("more memory or time")))
                    elif killed_before:
                        kept.append(then(chunk[len(kept)], killed()))
                    killed_before = was_killed and not killed_before
        except BaseException:
            child.kill()  # it may be in the middle of an answer
            raise
        finally:
            self._idle.put(child)
        return kept

    def _log_missing(self) -> None:
        """Logs, once one child is confined, what it could not have; all are alike."""
        child = self._idle.get()
        try:
            log_missing({**self._missing, **child.await_start()})
        except StartError as error:
            log.warning("sandbox_child_failed", error=str(error))
        finally:
            self._idle.put(child)

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
    """Indices of a few arguments together, so that handing them over costs little, and few enough that all children have work."""
    chunks: list[range] = []
    start = size_bytes = 0
    for index, argument in enumerate(arguments):
        argument_bytes = len(argument) if isinstance(argument, bytes) else 0
        if index - start == CHUNK_CALLS_MAX or (index > start and size_bytes + argument_bytes > CHUNK_BYTES_MAX):
            chunks.append(range(start, index))
            start, size_bytes = index, 0
        size_bytes += argument_bytes
    return [*chunks, range(start, len(arguments))]
