"""Memory that a child shares with its parent, so that files and arrays do not pass through their channel.

Pickles refer to it (PEP 574): the large buffers of a value are in the memory, and its pickle contains the rest. Buffers that do not fit
stay in the pickle. The child can change the memory at any time, so the parent copies each buffer before it reads it.
"""

import fcntl
import mmap
import os
import pickle
import struct
from collections.abc import Callable, Sequence
from typing import Any

from vesta_common.sandbox import kernel

SIZE_BYTES = 16 * 1024 * 1024
BUFFER_BYTES_MIN = 4096
"""Smaller buffers stay in the pickle."""
ROOM_BYTES_MAX = 4 * 1024 * 1024
"""Maximum memory for the result of one call."""
RESIDENT_BYTES_MAX = 2 * 1024 * 1024
"""Between calls, the kernel may keep this much of the memory."""
_ALIGNMENT = 64
_COUNT = struct.Struct(">I")
_SIZE = struct.Struct(">Q")

Buffer = bytes | bytearray | memoryview


def create() -> int:
    """Creates the memory, in which no page is allocated yet, and returns its file descriptor. It cannot be resized."""
    descriptor = os.memfd_create("vesta-sandbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, SIZE_BYTES)
    # A child that shortens the memory could otherwise end its parent, which maps it, with SIGBUS.
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return descriptor


def attach(descriptor: int) -> mmap.mmap:
    """Maps the memory into this process."""
    return mmap.mmap(descriptor, SIZE_BYTES)


def attach_only(descriptor: int) -> memoryview:
    """Maps the memory into this process and closes the file descriptor, unlike `mmap`, which keeps a duplicate of it.

    Raises:
        OSError: the memory cannot be mapped.
    """
    mapped = kernel.map_shared(descriptor, SIZE_BYTES)
    os.close(descriptor)
    return mapped


def rooms(used_bytes: int, count: int) -> list[slice]:
    """Divides the memory after the first `used_bytes` into one part for each of `count` results."""
    start = _aligned(used_bytes)
    each = min((SIZE_BYTES - start) // count // _ALIGNMENT * _ALIGNMENT, ROOM_BYTES_MAX)
    return [slice(start + index * each, start + (index + 1) * each) for index in range(count)]


def dump(value: Any, memory: memoryview) -> tuple[bytes, int]:
    """Pickles a value, with its large buffers in `memory`. Returns the frame for `load`, and how much of the memory is in use."""
    sizes: list[int] = []
    used_bytes = 0

    def place(buffer: pickle.PickleBuffer) -> bool:
        """Copies a buffer to the memory. Returns True if it stays in the pickle."""
        nonlocal used_bytes
        content = buffer.raw()
        start = _aligned(used_bytes)
        if content.nbytes < BUFFER_BYTES_MIN or start + content.nbytes > len(memory):
            return True
        used_bytes = start + content.nbytes
        memory[start:used_bytes] = content
        sizes.append(content.nbytes)
        return False

    content = pickle.dumps(value, 5, buffer_callback=place)
    return b"".join((_COUNT.pack(len(sizes)), *map(_SIZE.pack, sizes), content)), used_bytes


def load(
    frame: Buffer,
    memory: memoryview,
    unpickle: Callable[[memoryview, Sequence[Buffer]], Any],
    read: Callable[[memoryview], Buffer],
) -> tuple[Any, int]:
    """Returns a value, and how much of the memory its buffers use.

    Args:
        frame: from `dump`.
        unpickle: reads a pickle, given the buffers that are not in it.
        read: returns the buffer for a part of the memory: a copy, or the part itself.

    Raises:
        UnpicklingError: the frame refers to memory that does not exist.
    """
    try:
        (count,) = _COUNT.unpack_from(frame)
        sizes: Sequence[int] = struct.unpack_from(f">{count}Q", frame, _COUNT.size)
    except struct.error as error:
        raise pickle.UnpicklingError(f"the frame is truncated: {error}") from error
    buffers: list[Buffer] = []
    used_bytes = 0
    for size_bytes in sizes:
        start = _aligned(used_bytes)
        used_bytes = start + size_bytes
        if used_bytes > len(memory):
            raise pickle.UnpicklingError(f"the frame refers to {used_bytes} of {len(memory)} bytes of shared memory")
        buffers.append(read(memory[start:used_bytes]))
    return unpickle(memoryview(frame)[_COUNT.size + count * _SIZE.size :], buffers), used_bytes


def release_pages(memory: mmap.mmap, used_bytes: int) -> None:
    """Returns the pages after the first `RESIDENT_BYTES_MAX` to the kernel, if they were in use."""
    if used_bytes > RESIDENT_BYTES_MAX:
        memory.madvise(mmap.MADV_REMOVE, RESIDENT_BYTES_MAX, SIZE_BYTES - RESIDENT_BYTES_MAX)


def _aligned(position: int) -> int:
    return -(-position // _ALIGNMENT) * _ALIGNMENT
