"""Main program of a sandbox child: loads modules, confines itself, then serves calls from its parent.

Started only by `vesta_common.sandbox.process`. A frame is a length (eight bytes, big-endian) and its content. The child's first frame is
JSON: the missing protection layers with reasons. The following frames are pickles with large buffers in `shared_memory`. Each request
contains the pickle of a function (by reference, or as `module:name`), which is the same for many calls, and its arguments. The child
responds with one frame per argument, a result or an error, so that it holds at most one result at a time.
"""

import json
import os
import pickle
import resource
import signal
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

from vesta_common.errors import Internal, InvalidArgument, VestaError
from vesta_common.sandbox import shared_memory
from vesta_common.sandbox.confinement import confine

FRAME_HEADER = struct.Struct(">Q")
_JOINED_BYTES_MAX = 64 * 1024
FUNCTIONS_MAX = 16
_ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
_CODECS = ("ascii", "latin_1", "utf_8", "utf_16", "utf_16_le", "utf_16_be", "cp437")


def main() -> None:
    """Serves calls until the parent closes the channel. The command-line argument is JSON from `vesta_common.sandbox.process`."""
    options = json.loads(sys.argv[1])
    channel, memory = int(options["channel"]), shared_memory.attach_only(int(options["memory"]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its children itself
    load(options["modules"])
    folder = Path(options["folder"]) if options["folder"] else None
    _limit(options)
    seen, missing = confine(folder, as_nobody=options["as_nobody"])
    _send(channel, json.dumps(missing).encode())
    while _serve(channel, memory, seen, options["cpu_seconds_max"]):
        pass


def _serve(channel: int, memory: memoryview, folder: Path | None, cpu_seconds_max: int) -> bool:
    """Serves one frame of calls and frees its memory. Returns False if the parent has closed the channel."""
    frame = _receive(channel)
    if frame is None:
        return False
    (function, arguments), used_bytes = shared_memory.load(frame, memory, _unpickle, lambda part: part)
    del frame
    called = _function(function)
    for argument, room in zip(arguments, shared_memory.rooms(used_bytes, len(arguments)), strict=True):
        result = _run(called, argument, folder, cpu_seconds_max)
        _send(channel, shared_memory.dump(result, memory[room])[0])
        del result
    return True


@lru_cache(FUNCTIONS_MAX)
def _function(pickled: bytes) -> Callable[..., Any] | str:
    return pickle.loads(pickled)  # type: ignore[no-any-return] # noqa: S301 - from the parent


def _unpickle(content: memoryview, buffers: Sequence[shared_memory.Buffer]) -> Any:
    return pickle.loads(content, buffers=buffers)  # noqa: S301 - from the parent


def load(modules: list[str]) -> None:
    """Imports everything that calls need while files are readable. A module's function `warm_up` triggers its lazy imports."""
    for name in _ONE_THREAD:
        os.putenv(name, "1")  # there is already one child per processor
    for codec in _CODECS:
        import_module(f"encodings.{codec}")
    for module in modules:
        warm_up = getattr(import_module(module), "warm_up", None)
        if warm_up:
            warm_up()
    for name in _ONE_THREAD:
        os.unsetenv(name)


def frame_parts(content: bytes) -> tuple[bytes, memoryview]:
    """Returns what to write for a frame. Header and content are joined up to 64 KiB, so that the reader wakes up once for a usual frame."""
    view = memoryview(content)
    joined = b"".join((FRAME_HEADER.pack(len(content)), view[:_JOINED_BYTES_MAX]))
    return joined, view[_JOINED_BYTES_MAX:]


def too_costly(what: str) -> InvalidArgument:
    """Returns the error for a call that exceeded its limits."""
    return InvalidArgument(
        f"decoding the image exceeds the limit of {what}; scale the image down", reason="IMAGE_TOO_EXPENSIVE"
    )


def _limit(options: Mapping[str, Any]) -> None:
    """Limits memory and file sizes, disables core dumps, and detaches from the parent's standard streams."""
    for limit, most in (
        (resource.RLIMIT_AS, options["memory_bytes_max"]),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, options["file_bytes_max"]),
    ):
        resource.setrlimit(limit, (most, most))
    null_device = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null_device, descriptor)
    os.close(null_device)


def _run(function: Callable[..., Any] | str, argument: Any, folder: Path | None, cpu_seconds_max: int) -> Any:
    _allow_seconds(cpu_seconds_max)
    try:
        if isinstance(function, str):
            module, _, name = function.partition(":")
            return getattr(sys.modules[module], name)(folder, argument)
        return function(argument)
    except VestaError as error:
        error.__cause__ = error.__context__ = None  # their frames hold decoded data, whose memory the next call needs
        return error.with_traceback(None)
    except MemoryError:
        return too_costly("memory")
    except Exception as error:  # noqa: BLE001 - every error is returned to the caller
        return Internal(f"the sandboxed function failed: {error!r}", reason="SANDBOX_FAILED")


def _allow_seconds(cpu_seconds_max: int) -> None:
    """Limits the CPU time of the next call. The kernel kills this process when it is exceeded."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(usage.ru_utime + usage.ru_stime) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (spent + cpu_seconds_max, hard))


# The channel is read and written as a file descriptor, because the socket functions are not allowed in the sandbox.


def _send(channel: int, content: bytes) -> None:
    for part in frame_parts(content):
        view = memoryview(part)
        while view:
            view = view[os.write(channel, view) :]


def _receive(channel: int) -> bytearray | None:
    header = _receive_exactly(channel, FRAME_HEADER.size)
    return header and _receive_exactly(channel, FRAME_HEADER.unpack(header)[0])


def _receive_exactly(channel: int, size_bytes: int) -> bytearray | None:
    """Reads the given number of bytes. Returns None if the parent has closed the channel."""
    buffer = bytearray(size_bytes)
    view = memoryview(buffer)
    while view:
        count = os.readv(channel, [view])
        if not count:
            return None
        view = view[count:]
    return buffer
