"""The embedded engines: how each is prepared, started and checked for health."""
