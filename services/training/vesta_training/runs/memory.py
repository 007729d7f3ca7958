"""The memory allocator of training processes."""

import ctypes
from typing import Final

# Of malloc.h; both are limits in bytes. See mallopt(3).
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_KEPT_BYTES: Final = 256 * 1024**2
_TENSOR_BYTES_MAX: Final = 32 * 1024**2


def keep_freed_memory() -> None:
    """Keeps freed memory for the next tensors, up to a quarter of a gigabyte per arena, instead of returning it to the kernel.

    By default, the tensors of each step of a small head are returned and get new pages, which the kernel fills with zeros: a sixth of the
    processor time of a step. Does nothing with another C library than that of GNU.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _TENSOR_BYTES_MAX)
