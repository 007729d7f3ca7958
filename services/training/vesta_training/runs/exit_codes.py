"""Exit codes of training processes, which the pod failure policy of their Job distinguishes."""

PERMANENT_EXIT_CODE = 10
"""A permanent error; it is stored in the object store."""
TRANSIENT_EXIT_CODE = 11
"""A transient error: a dependency, such as another pod of the run, did not respond. A restart can succeed."""
KILLED_EXIT_CODE = 137
TERMINATED_EXIT_CODE = 143
