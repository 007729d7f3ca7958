"""Keeps the counts of datasets short: replaces the rows that changes have added by one row per count."""

from vesta_datasets.store import Store

CHANGES_MIN = 100


class CountFolder:
    """Folds the counts of datasets with many changes. Safe to run in any number of replicas."""

    def __init__(self, store: Store, changes_min: int = CHANGES_MIN) -> None:
        self._store = store
        self._changes_min = changes_min

    def step(self) -> bool:
        """Folds the counts of each dataset that has at least `changes_min` changes, in a transaction each."""
        with self._store.postgres.transaction() as connection:
            names = self._store.datasets.list_unfolded(connection, self._changes_min)
        for name in names:
            with self._store.postgres.transaction() as connection:
                self._store.datasets.fold_counts(connection, name)
        return False
