"""Syncs: what is new in a source, batch by batch."""
