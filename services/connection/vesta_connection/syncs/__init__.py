"""Syncs: imports the new files of a source, batch by batch."""
