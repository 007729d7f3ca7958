"""The memory allocator of training processes."""

import json
import subprocess
import sys

ALLOCATE = """
import json, resource, sys
import numpy as np
if sys.argv[1] == "kept":
    from vesta_training.runs.memory import keep_freed_memory
    keep_freed_memory()
def touch():
    arrays = [np.ones(500_000) for _ in range(12)]  # 48 MB
for _ in range(5):
    touch()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    touch()
print(json.dumps(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before))
"""


def page_faults(mode: str) -> int:
    """Returns the number of pages that the kernel has filled with zeros while arrays are created and freed."""
    answer = subprocess.run([sys.executable, "-c", ALLOCATE, mode], check=True, capture_output=True, text=True)
    return int(json.loads(answer.stdout))


def test_freed_memory_is_used_again_without_new_pages() -> None:
    assert page_faults("kept") < page_faults("default") / 10
