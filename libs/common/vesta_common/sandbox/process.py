"""The parent's view of a child process: start, calls, timeouts, termination, and safe deserialization of results."""

import io
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, is_dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import structlog

from vesta_common.errors import Internal, VestaError
from vesta_common.sandbox import kernel, shared_memory
from vesta_common.sandbox.child import FRAME_HEADER, frame_parts

T = TypeVar("T")

RESULT_BYTES_MAX = 512 * 1024 * 1024
START_TIMEOUT = timedelta(minutes=2)  # allows for a busy machine
DEATH_SECONDS_MAX = 1.0  # until the kernel reports the exit status of a child whose socket is closed
SOCKET_BUFFER_BYTES = 1024 * 1024
RECEIVED_BYTES_MAX = 4096
_BOOTSTRAP = "import json, sys; sys.path[:] = json.loads(sys.argv[1])['path']; from vesta_common.sandbox.child import main; main()"

log = structlog.get_logger()


@dataclass(frozen=True)
class Limits:
    """Resource limits of a child.

    Attributes:
        memory_bytes_max: address space.
        cpu_seconds_max: CPU time per call.
        file_bytes_max: size of each file that it writes in the folder of its call.
    """

    memory_bytes_max: int = 2 * 1024**3
    cpu_seconds_max: int = 20
    file_bytes_max: int = 0


class StartError(Exception):
    """A child ended before it was ready. Its error output is on this process's standard error."""


class Child:
    """A child process, its socket, and the memory that it shares with this process. Not thread-safe.

    Args:
        modules: modules that calls need, imported before the child loses access to files.
        folder: the folder that calls may read and write, if any.
        as_nobody: whether the child runs as `NOBODY` if this process runs as root; the folder must then belong to that user.
    """

    def __init__(
        self, limits: Limits, modules: Sequence[str], folder: Path | None = None, *, as_nobody: bool = True
    ) -> None:
        self._missing: dict[str, str] | None = None
        self._received = bytearray()  # the beginning of the next frame
        self._function: tuple[object, bytes] = (None, b"")  # the last one, and its pickle
        self._channel, child_channel = socket.socketpair()
        memory = shared_memory.create()
        self._memory = shared_memory.attach(memory)
        with child_channel, ExitStack() as stack:
            stack.callback(os.close, memory)
            for end in (self._channel, child_channel):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
            options = {
                "path": [path for path in sys.path if path],
                "channel": child_channel.fileno(),
                "memory": memory,
                "modules": list(modules),
                "folder": str(folder) if folder else "",
                "as_nobody": as_nobody,
                **asdict(limits),
            }
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOTSTRAP, json.dumps(options)],
                env={},
                pass_fds=[child_channel.fileno(), memory],
                stdin=subprocess.DEVNULL,
                cwd=folder or "/",  # imported modules may also use it for temporary files if nothing else is writable
            )

    def await_start(self) -> dict[str, str]:
        """Waits until the child is confined. Returns the missing protection layers with reasons.

        Raises:
            StartError: the child ended, or takes longer than `START_TIMEOUT`.
        """
        if self._missing is None:
            try:
                missing = json.loads(self._receive_frame(time.monotonic() + START_TIMEOUT.total_seconds()))
            except (OSError, EOFError) as error:
                raise StartError(repr(error)) from error
            self._missing = {str(layer): str(why) for layer, why in missing.items()}
        return self._missing

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def was_killed(self) -> bool:
        """Returns True if something outside killed the child, such as the kernel's OOM killer. Its own limits end it differently."""
        try:
            return self._process.wait(DEATH_SECONDS_MAX) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            return False  # it is running, and was too slow or sent an invalid response

    def call(
        self, function: Callable[[Any], T] | str, arguments: Sequence[Any], timeout: timedelta
    ) -> Iterator[T | VestaError]:
        """Runs a function for each argument. Yields a result or an error for each, as they arrive.

        Args:
            function: a function of a loaded module; `module:name` is called with the folder and the argument. It receives large bytes as a
                read-only memoryview, which is valid during its call.
            timeout: per call.

        Raises:
            StartError: the child did not become ready.
            OSError, EOFError, UnpicklingError: the child died, exceeded the timeout or sent an invalid response; it must be replaced.
        """
        self.await_start()
        memory = memoryview(self._memory)
        frame, used_bytes = shared_memory.dump(
            (self._pickled(function), [_out_of_band(argument) for argument in arguments]), memory
        )
        self._channel.settimeout(timeout.total_seconds())
        self._send_frame(frame)
        del frame
        for room in shared_memory.rooms(used_bytes, len(arguments)):
            received = self._receive_frame(time.monotonic() + timeout.total_seconds())
            result, result_bytes = shared_memory.load(received, memory[room], unpickle, bytes)
            used_bytes = max(used_bytes, room.start + result_bytes)
            yield result
        shared_memory.release_pages(self._memory, used_bytes)

    def kill(self) -> None:
        """Kills the child. May be called from any thread; a thread that waits for the child gets an EOFError."""
        self._process.kill()
        self._process.wait()

    def release(self) -> None:
        """Kills the child and closes its socket."""
        self.kill()
        self._channel.close()

    def _pickled(self, function: Callable[..., Any] | str) -> bytes:
        """Returns the pickle of a function, which is that of the last call if the function is the same object."""
        if function is not self._function[0]:
            self._function = function, pickle.dumps(function)
        return self._function[1]

    def _send_frame(self, content: bytes) -> None:
        for part in frame_parts(content):
            if part:
                self._channel.sendall(part)

    def _receive_frame(self, deadline: float) -> bytearray:
        """Receives a frame, usually with one system call. What arrives after it is kept for the next one."""
        arrived = self._received
        while len(arrived) < FRAME_HEADER.size:
            buffer = bytearray(RECEIVED_BYTES_MAX)
            arrived += memoryview(buffer)[: self._receive_into(buffer, deadline)]
        (size_bytes,) = FRAME_HEADER.unpack_from(arrived)
        if size_bytes > RESULT_BYTES_MAX:
            raise pickle.UnpicklingError(f"the sandbox child returned {size_bytes} bytes")
        begun = arrived[FRAME_HEADER.size : FRAME_HEADER.size + size_bytes]
        del arrived[: FRAME_HEADER.size + size_bytes]
        if len(begun) == size_bytes:
            return begun
        frame = bytearray(size_bytes)
        frame[: len(begun)] = begun
        rest = memoryview(frame)[len(begun) :]
        while rest:
            rest = rest[self._receive_into(rest, deadline) :]
        return frame

    def _receive_into(self, buffer: bytearray | memoryview, deadline: float) -> int:
        """Receives some bytes, at least one; returns their number."""
        self._channel.settimeout(max(0.001, deadline - time.monotonic()))
        count = self._channel.recv_into(buffer)
        if not count:
            raise EOFError("the child died")
        return count


def _out_of_band(argument: Any) -> Any:
    """Marks bytes as a buffer that a pickle can leave out (PEP 574)."""
    return pickle.PickleBuffer(argument) if isinstance(argument, bytes | memoryview) else argument


def hide_this_process() -> dict[str, str]:
    """Hides this process's memory and environment from its children. Returns the reason if the kernel does not support it."""
    try:
        kernel.forbid_dumps()
    except OSError as error:
        return {"non-dumpable parent": error.strerror or str(error)}
    return {}


def log_missing(missing: Mapping[str, str]) -> None:
    """Logs the missing protection layers, if any. Repeated calls log only once."""
    if missing:
        _log_once(tuple(sorted(missing.items())))


@cache
def _log_once(missing: tuple[tuple[str, str], ...]) -> None:
    log.warning("sandbox_protection_missing", layers=[layer for layer, _ in missing], why=dict(missing))


def not_started(error: StartError) -> Internal:
    """Returns the error for a call for which no child could be started."""
    return Internal(f"the sandbox process does not start ({error}); see the log", reason="SANDBOX_FAILED")


def killed() -> Internal:
    """Returns the error for a call whose child was killed from outside."""
    return Internal(
        "the sandbox process was killed twice; check whether the machine is out of memory",
        reason="SANDBOX_FAILED",
    )


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
_allowed: dict[tuple[str, str], Any] = {}
"""The classes that children have sent, which are a few of this process."""


def unpickle(content: shared_memory.Buffer, buffers: Sequence[shared_memory.Buffer] = ()) -> Any:
    """Reads a pickle from a child, given the buffers that are not in it.

    Raises:
        UnpicklingError: it contains more than plain values.
    """
    return Unpickler(io.BytesIO(content), buffers=buffers).load()


class Unpickler(pickle.Unpickler):
    """Deserializes plain values and rejects everything that could execute code."""

    def find_class(self, module: str, name: str) -> Any:
        """Returns the class of a value, if a child may send it.

        Raises:
            UnpicklingError: the class is not allowed.
        """
        allowed = _allowed.get((module, name))
        if allowed is None:
            allowed = _allowed[module, name] = self._check_class(module, name)
        return allowed

    def _check_class(self, module: str, name: str) -> Any:
        if (module, name) in _PLAIN:
            return super().find_class(module, name)
        if module.startswith("vesta_") and "." not in name:
            loaded = super().find_class(module, name)
            if isinstance(loaded, type) and (is_dataclass(loaded) or issubclass(loaded, VestaError)):
                return loaded
        raise pickle.UnpicklingError(f"a sandbox child may not return {module}.{name}")
