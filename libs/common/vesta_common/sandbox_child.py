"""What runs inside a sandbox's child: reads calls from a socket, limits each, answers. Started by `vesta_common.sandbox` alone.

A frame is a length of eight bytes, big-endian, and a pickle: in, a function (by reference) and its arguments; out, for each
of them a frame with its answer, or error, so that never more than one answer is held here.
"""

import pickle
import resource
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any

from vesta_common.errors import Internal, InvalidArgument, VestaError

FRAME_HEADER = struct.Struct(">Q")


def main() -> None:
    """Serves calls until the other end closes. Arguments: the socket's descriptor, memory in bytes, processor seconds a call."""
    descriptor, memory_bytes_max, cpu_seconds_max = map(int, sys.argv[1:])
    _confine(memory_bytes_max)
    with socket.socket(fileno=descriptor) as channel:
        while frame := _receive(channel):
            function, arguments = pickle.loads(frame)  # noqa: S301 - from our parent
            for argument in arguments:
                payload = pickle.dumps(_answer(function, argument, cpu_seconds_max), pickle.HIGHEST_PROTOCOL)
                channel.sendall(FRAME_HEADER.pack(len(payload)))
                channel.sendall(payload)


def _confine(memory_bytes_max: int) -> None:
    """Bounds memory, and forbids to write files and to leave dumps."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes_max, memory_bytes_max))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _answer(function: Callable[[Any], Any], argument: Any, cpu_seconds_max: int) -> Any:
    _allow_seconds(cpu_seconds_max)
    try:
        return function(argument)
    except VestaError as error:
        return error
    except MemoryError:
        return too_costly("more memory")
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller hears of it
        return Internal(f"the sandboxed function failed: {error!r}", reason="SANDBOX_FAILED")


def _allow_seconds(cpu_seconds_max: int) -> None:
    """The kernel kills this process where it works longer than that from now on."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    spent = int(usage.ru_utime + usage.ru_stime) + 1
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (spent + cpu_seconds_max, hard))


def too_costly(what: str) -> InvalidArgument:
    """The error for a call that needed too much."""
    return InvalidArgument(f"decoding the image takes {what} than it may; scale it down", reason="IMAGE_TOO_COSTLY")


def _receive(channel: socket.socket) -> bytes | None:
    header = _receive_exactly(channel, FRAME_HEADER.size)
    return header and _receive_exactly(channel, FRAME_HEADER.unpack(header)[0])


def _receive_exactly(channel: socket.socket, size_bytes: int) -> bytes | None:
    """None where the other end has closed."""
    buffer = bytearray(size_bytes)
    view = memoryview(buffer)
    while view:
        count = channel.recv_into(view)
        if not count:
            return None
        view = view[count:]
    return bytes(buffer)


def preload() -> None:
    """Loads what images need, so that the first call is as quick as the next; numpy's and Pillow's tables count as memory."""
    import vesta_common.images  # noqa: F401


if __name__ == "__main__":
    preload()
    main()
