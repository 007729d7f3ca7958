"""The container images of the platform: what is in each, how they are built, packed and loaded. Python's standard library alone."""
