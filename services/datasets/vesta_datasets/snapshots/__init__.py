"""Snapshots of a dataset: manifests, statistics and differences."""
