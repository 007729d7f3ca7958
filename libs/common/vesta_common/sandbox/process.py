"""One child process as its parent sees it: started, called, limited in time, ended; and what of its answers is believed."""

import io
import json
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import structlog

from vesta_common.errors import Internal, VestaError
from vesta_common.sandbox import kernel
from vesta_common.sandbox.child import FRAME_HEADER

T = TypeVar("T")

ANSWER_BYTES_MAX = 512 * 1024 * 1024
START_TIMEOUT = timedelta(minutes=2)  # on a machine that is busy with something else
DEATH_SECONDS_MAX = 1.0  # until the kernel reports how a child ended whose socket is closed
SOCKET_BUFFER_BYTES = 1024 * 1024
_BOOTSTRAP = "import json, sys; sys.path[:] = json.loads(sys.argv[1])['path']; from vesta_common.sandbox.child import main; main()"

log = structlog.get_logger()


@dataclass(frozen=True)
class Limits:
    """What a child may take.

    Attributes:
        memory_bytes_max: of address space.
        cpu_seconds_max: of processor time, of one call.
        file_bytes_max: of each file that it writes, in the folder of its call.
    """

    memory_bytes_max: int = 2 * 1024**3
    cpu_seconds_max: int = 20
    file_bytes_max: int = 0


class StartError(Exception):
    """A child ended before it was ready; its own words are on this process's standard error."""


class Child:
    """One child process and the socket to it. Used by one thread at a time.

    Args:
        modules: what its calls need, imported before it gives up reading files.
        folder: the one folder that its calls may read and write, if any.
        as_nobody: whether it becomes another user where this process is root; the folder must be that user's.
    """

    def __init__(
        self, limits: Limits, modules: Sequence[str], folder: Path | None = None, *, as_nobody: bool = True
    ) -> None:
        self._missing: dict[str, str] | None = None
        self._channel, theirs = socket.socketpair()
        with theirs:
            for end in (self._channel, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER_BYTES)
            told = {
                "path": [path for path in sys.path if path],
                "channel": theirs.fileno(),
                "modules": list(modules),
                "folder": str(folder) if folder else "",
                "as_nobody": as_nobody,
                **asdict(limits),
            }
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _BOOTSTRAP, json.dumps(told)],
                env={},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                cwd=folder or "/",  # also where what is loaded may put temporary files if nothing else can be written
            )

    def await_start(self) -> dict[str, str]:
        """Waits until it is confined; answers which layers of protection it could not have, with the reasons.

        Raises:
            StartError: it ended, or takes longer than `START_TIMEOUT`.
        """
        if self._missing is None:
            try:
                told = json.loads(self._receive_frame(time.monotonic() + START_TIMEOUT.total_seconds()))
            except (OSError, EOFError) as error:
                raise StartError(repr(error)) from error
            self._missing = {str(layer): str(why) for layer, why in told.items()}
        return self._missing

    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def was_killed(self) -> bool:
        """Whether something outside ended it, such as a machine short of memory. What its limits end dies otherwise."""
        try:
            return self._process.wait(DEATH_SECONDS_MAX) == -signal.SIGKILL
        except subprocess.TimeoutExpired:
            return False  # it lives, and was too slow or answered nonsense

    def call(
        self, function: Callable[[Any], T] | str, arguments: Sequence[Any], timeout: timedelta
    ) -> Iterator[T | VestaError]:
        """One answer, or error, for each argument, as they come.

        Args:
            function: of a module that was loaded; `module:name` is called with the folder and the argument.
            timeout: of each call.

        Raises:
            StartError: it never became ready.
            OSError, EOFError, UnpicklingError: it died, took too long or answered nonsense; it must be replaced.
        """
        self.await_start()
        payload = pickle.dumps((function, list(arguments)), pickle.HIGHEST_PROTOCOL)
        self._channel.settimeout(timeout.total_seconds())
        self._channel.sendall(FRAME_HEADER.pack(len(payload)))
        self._channel.sendall(payload)
        del payload
        for _ in arguments:
            yield Unpickler(io.BytesIO(self._receive_frame(time.monotonic() + timeout.total_seconds()))).load()

    def kill(self) -> None:
        """Ends it at once; any thread may, and its own hears EOFError."""
        self._process.kill()
        self._process.wait()

    def release(self) -> None:
        """Ends it and gives back its socket."""
        self.kill()
        self._channel.close()

    def _receive_frame(self, deadline: float) -> bytearray:
        (size_bytes,) = FRAME_HEADER.unpack(self._receive(FRAME_HEADER.size, deadline))
        if size_bytes > ANSWER_BYTES_MAX:
            raise pickle.UnpicklingError(f"the child answers with {size_bytes} bytes")
        return self._receive(size_bytes, deadline)

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


def hide_this_process() -> dict[str, str]:
    """Closes this process's memory and environment to its children; answers why that is missing where it is."""
    try:
        kernel.forbid_dumps()
    except OSError as error:
        return {"non-dumpable parent": error.strerror or str(error)}
    return {}


def log_missing(missing: Mapping[str, str]) -> None:
    """Logs, once in this process, which layers of protection the kernel does not grant, if any."""
    if missing:
        _log_once(tuple(sorted(missing.items())))


@cache
def _log_once(missing: tuple[tuple[str, str], ...]) -> None:
    log.warning("sandbox_protection_missing", layers=[layer for layer, _ in missing], why=dict(missing))


def not_started(error: StartError) -> Internal:
    """The error for calls that no child could be started for."""
    return Internal(f"the process that decodes does not start ({error}); the log says why", reason="SANDBOX_FAILED")


def killed() -> Internal:
    """The error for a call whose children were ended by others."""
    return Internal(
        "the process that decodes was killed from outside, twice; see whether the machine is short of memory",
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


class Unpickler(pickle.Unpickler):
    """Reads values, and refuses whatever would run something."""

    def find_class(self, module: str, name: str) -> Any:
        """The class of a value that a child may answer with.

        Raises:
            UnpicklingError: it may not.
        """
        if (module, name) in _PLAIN:
            return super().find_class(module, name)
        if module.startswith("vesta_") and "." not in name:
            found = super().find_class(module, name)
            if isinstance(found, type) and (is_dataclass(found) or issubclass(found, VestaError)):
                return found
        raise pickle.UnpicklingError(f"a child may not answer with {module}.{name}")
