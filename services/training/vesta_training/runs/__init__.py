"""The execution of runs: the job, its processes, and its communication with the service through the object store."""
