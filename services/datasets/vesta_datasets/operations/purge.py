"""Deletes the items of deleted datasets, in batches. A dataset is gone as soon as its row is deleted, however many items it has."""

import time
from datetime import timedelta

from vesta_datasets.store import Store

BATCH_ITEMS = 1_000
DELETE_WAIT = timedelta(seconds=1)
"""How long the deletion of a dataset waits for the deletion of its items, so that small datasets leave nothing behind."""


class Purge:
    """Deletes the items of deleted datasets. Each batch is a transaction, so that a killed process loses at most one.

    Safe to run in any number of replicas.
    """

    def __init__(self, store: Store, batch_items: int = BATCH_ITEMS) -> None:
        self._store = store
        self._batch_items = batch_items

    def step(self) -> bool:
        """Deletes a batch of items of the dataset that was deleted first. Returns False if there is nothing to do."""
        return self._delete_batch("")

    def run(self, dataset: str, wait: timedelta = DELETE_WAIT) -> None:
        """Deletes the items of a deleted dataset until none is left or the time is over; `step` deletes the others."""
        end = time.monotonic() + wait.total_seconds()
        while self._delete_batch(dataset) and time.monotonic() < end:
            pass

    def _delete_batch(self, dataset: str) -> bool:
        with self._store.postgres.transaction() as connection:
            return self._store.datasets.purge(connection, dataset, self._batch_items)
