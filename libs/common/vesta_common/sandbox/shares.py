"""The memory of children where the pod's is limited: they share what the service itself leaves, so that a child dies and not the pod."""

from dataclasses import replace

from vesta_common.sandbox.process import Limits

MIB = 1024 * 1024
RESERVED_BYTES = 192 * MIB
"""For the service itself: some 80 MiB at rest, and the images that it holds while they are decoded."""
USEFUL_BYTES = 384 * MIB
"""Of address space, in which an image of 64 megapixels is decoded from JPEG, and one of 11 from any format; with less, fewer children."""
LEAST_BYTES = 256 * MIB
"""Of address space, for 145 MiB of it are taken before the first image."""


def shared(room_bytes: int | None, processes: int, limits: Limits) -> tuple[int, Limits]:
    """How many children may run, of those asked for, and what each may take.

    Args:
        room_bytes: of the whole pod; None where it is not limited.
    """
    if room_bytes is None:
        return processes, limits
    left = max(room_bytes - RESERVED_BYTES, LEAST_BYTES)
    processes = max(1, min(processes, left // USEFUL_BYTES))
    return processes, replace(limits, memory_bytes_max=min(limits.memory_bytes_max, left // processes))
