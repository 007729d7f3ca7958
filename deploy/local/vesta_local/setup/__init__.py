"""Implements `make setup` with the Python standard library only, because it runs before anything is installed."""
