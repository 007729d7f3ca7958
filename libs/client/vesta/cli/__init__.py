"""The `vesta` command line."""
