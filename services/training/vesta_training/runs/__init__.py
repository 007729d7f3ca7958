"""Runs while they are trained: where they are trained, and what is handed over through the object store."""
