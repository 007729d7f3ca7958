"""Exit codes of a training process, by which the failure policy of its Job knows what to do."""

REFUSED_EXIT_CODE = 10
"""Of work that ended with an error which another start would meet again; the error is on the object store."""
TRANSIENT_EXIT_CODE = 11
"""Of work that something it needs did not answer, such as another pod of the run; another start may succeed."""
KILLED_EXIT_CODE = 137
TERMINATED_EXIT_CODE = 143
