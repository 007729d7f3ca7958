"""The start time of a platform that was started before, and its memory while idle."""

import time

from figures import Figure
from vesta_local.platform import Platform

IDLE_SECONDS = 20
GOAL_SECONDS = 15
FLOOR_SECONDS = 30
GOAL_MIB = 3072


def measure(platform: Platform) -> list[Figure]:
    """`idle_memory_mib` of all processes together, and `second_start_seconds`. The platform is running before and
    after.

    Memory is proportional set size: shared memory is counted once. Both depend on the data of the platform and on
    what it has loaded: measured after a loop, they are those of a platform in use.
    """
    time.sleep(IDLE_SECONDS)
    memory = sum(row.memory_mib for row in platform.rows())
    platform.down()
    began = time.monotonic()
    platform.up()
    seconds = time.monotonic() - began
    return [
        Figure("second_start_seconds", seconds, GOAL_SECONDS, lower=True, floor=FLOOR_SECONDS),
        Figure("idle_memory_mib", memory, GOAL_MIB, lower=True),
    ]
