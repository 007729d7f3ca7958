"""The `vesta` command line: the platform from a terminal."""
