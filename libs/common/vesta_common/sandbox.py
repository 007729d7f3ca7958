"""Runs pure functions on untrusted bytes in child processes, each limited in memory and time; a child that dies fails one call.

A child is a fresh interpreter that shares nothing with this process: no memory, no environment, no descriptors, so that a decoder
that was taken over finds no credentials. It cannot write files. Of what it answers only plain values, arrays, our errors and our
frozen dataclasses are accepted, so that it cannot make this process run anything either.
"""

import io
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import is_dataclass
from datetime import timedelta
from queue import SimpleQueue
from typing import Any, TypeVar

import structlog

from vesta_common.errors import Internal, VestaError
from vesta_common.sandbox_child import FRAME_HEADER, too_costly

T = TypeVar("T")
R = TypeVar("R")

PROCESSES = 2
MEMORY_BYTES_MAX = 2 * 1024 * 1024 * 1024
CPU_SECONDS_MAX = 20
TIMEOUT = timedelta(seconds=60)
CHUNK_CALLS_MAX = 8
CHUNK_BYTES_MAX = 2 * 1024 * 1024
ANSWER_BYTES_MAX = 512 * 1024 * 1024
DEATH_SECONDS_MAX = 1.0  # until the kernel has told how a child ended whose socket is closed
SOCKET_BUFFER_BYTES = 1024 * 1024

log = structlog.get_logger()


class Sandbox:
    """A pool of children. Safe to share between threads.

    Args:
        processes: how many children, and so how many calls run at once.
        memory_bytes_max: address space of each child.
        cpu_seconds_max: processor time of one call.
    """

    def __init__(
        self,
        processes: int = PROCESSES,
        memory_bytes_max: int = MEMORY_BYTES_MAX,
        cpu_seconds_max: int = CPU_SECONDS_MAX,
    ) -> None:
        self._limits = (memory_bytes_max, cpu_seconds_max)
        self._idle: SimpleQueue[_Child] = SimpleQueue()
        self._children: set[_Child] = set()
        self._guard = threading.Lock()
        self._closed = False
        self._threads = ThreadPoolExecutor(processes, thread_name_prefix="sandbox")
        for _ in range(processes):
            self._idle.put(self._started())

    def run(self, function: Callable[[Any], T], argument: Any, timeout: timedelta = TIMEOUT) -> T:
        """The function's answer for one argument.

        Args:
            function: of a module that the child can import.
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
                except (OSError, EOFError, pickle.UnpicklingError) as error:
                    log.warning("sandbox_child_lost", error=repr(error), calls=len(left))
                    killed = child.was_killed()
                    child = self._replaced(child)
                    if not killed:
                        kept.append(then(chunk[len(kept)], too_costly("more memory or time")))
                    elif killed_before:
                        kept.append(then(chunk[len(kept)], _killed()))
                    killed_before = killed and not killed_before
        except BaseException:
            child.kill()  # it may be in the middle of an answer
            raise
        finally:
            self._idle.put(child)
        return kept

    def _started(self) -> "_Child":
        with self._guard:
            if self._closed:
                raise _closed()
            child = _Child(*self._limits)
            self._children.add(child)
            return child

    def _replaced(self, child: "_Child") -> "_Child":
        child.kill()
        started = self._started()
        self._children.discard(child)
        child.release()
        return started


def _closed() -> Internal:
    return Internal("the sandbox is closed", reason="SANDBOX_CLOSED")


def _killed() -> Internal:
    return Internal(
        "the process that decodes was killed from outside, twice; see whether the machine is short of memory",
        reason="SANDBOX_FAILED",
    )


class _Child:
    """One child process and the socket to it. Used by one thread at a time."""

    def __init__(self, memory_bytes_max: int, cpu_seconds_max: int) -> None:
        self._channel, theirs = socket.socketpair()
        with theirs:
            for end in (self._channel, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
            command = [sys.executable, "-m", "vesta_common.sandbox_child"]
            limits = [str(theirs.fileno()), str(memory_bytes_max), str(cpu_seconds_max)]
            self._process = subprocess.Popen(
                [*command, *limits], env=_environment(), pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, cwd="/"
            )

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def was_killed(self) -> bool:
        """Whether something outside ended it, such as a machine short of memory. What its limits end dies otherwise."""
        try:
            return self._process.wait(DEATH_SECONDS_MAX) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            return False  # it lives, and was too slow or answered nonsense

    def call(
        self, function: Callable[[Any], T], arguments: Sequence[Any], timeout: timedelta
    ) -> Iterator[T | VestaError]:
        """One answer, or error, for each argument, as they come.

        Raises:
            OSError, EOFError, UnpicklingError: the child died, took too long or answered nonsense; it must be replaced.
        """
        payload = pickle.dumps((function, list(arguments)), pickle.HIGHEST_PROTOCOL)
        self._channel.settimeout(timeout.total_seconds())
        self._channel.sendall(FRAME_HEADER.pack(len(payload)))
        self._channel.sendall(payload)
        del payload
        for _ in arguments:
            deadline = time.monotonic() + timeout.total_seconds()
            (size_bytes,) = FRAME_HEADER.unpack(self._receive(FRAME_HEADER.size, deadline))
            if size_bytes > ANSWER_BYTES_MAX:
                raise pickle.UnpicklingError(f"the child answers with {size_bytes} bytes")
            yield _Unpickler(io.BytesIO(self._receive(size_bytes, deadline))).load()

    def kill(self) -> None:
        """Ends it at once; any thread may, and its own hears EOFError."""
        self._process.kill()
        self._process.wait()

    def release(self) -> None:
        """Ends it and gives back its socket."""
        self.kill()
        self._channel.close()

    def _receive(self, size_bytes: int, deadline: float) -> bytearray:
        buffer = bytearray(size_bytes)
        view = memoryview(buffer)
        while view:
            self._channel.settimeout(max(0.001, deadline - time.monotonic()))
            count = self._channel.recv_into(view)
            if not count:
                raise EOFError("the child died")
            view = view[count:]
        return buffer


def _environment() -> dict[str, str]:
    """Nothing of ours but where modules lie; one thread of algebra, for children are as many as processors already."""
    return {
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "2",
    }


_PLAIN = {
    ("builtins", "complex"),
    ("builtins", "set"),
    ("builtins", "frozenset"),
    ("builtins", "bytearray"),
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
    ("vesta_common.errors", "_rebuild"),
}


class _Unpickler(pickle.Unpickler):
    """Reads values, and refuses whatever would run something."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return super().find_class(module, name)
        if module.startswith("vesta_") and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and (is_dataclass(found) or issubclass(found, VestaError)):
                return found
        raise pickle.UnpicklingError(f"a child may not answer with {module}.{name}")


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
