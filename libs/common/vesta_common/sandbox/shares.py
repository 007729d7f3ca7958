"""Divides the pod's memory limit between the service and its sandbox children, so that a child exceeds its limit before the pod does."""

from dataclasses import replace

from vesta_common.sandbox.process import Limits

MIB = 1024 * 1024
RESERVED_BYTES = 192 * MIB
"""Reserved for the service itself: about 80 MiB when idle, plus the images being decoded."""
USEFUL_BYTES = 384 * MIB
"""Preferred address space per child: enough for a JPEG of 64 megapixels, or 11 megapixels in any format. With less, fewer children run."""
LEAST_BYTES = 256 * MIB
"""Minimum address space per child: 161 MiB are in use before the first image, 16 of them shared with the service."""


def shared(memory_bytes: int | None, processes: int, limits: Limits) -> tuple[int, Limits]:
    """Returns the number of children to run, up to `processes`, and the limits of each.

    Args:
        memory_bytes: the pod's memory limit; None if it is unlimited.
    """
    if memory_bytes is None:
        return processes, limits
    available_bytes = max(memory_bytes - RESERVED_BYTES, LEAST_BYTES)
    processes = max(1, min(processes, available_bytes // USEFUL_BYTES))
    return processes, replace(limits, memory_bytes_max=min(limits.memory_bytes_max, available_bytes // processes))
