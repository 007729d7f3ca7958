"""Snapshots of a dataset: manifests, statistics, differences."""
