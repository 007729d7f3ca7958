"""The statements of `queries.sql`, by name, and the size of batches."""

from vesta_common.storage.postgres import load_queries

queries = load_queries("vesta_gateway")

PRUNE_BATCH_MAX = 1_000
"""Batch size for deletions, so that no transaction holds locks for long."""
