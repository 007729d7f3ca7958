"""Tells how far a dataset is scored: often enough to be followed, and always with the last counts, however fast predictions come.

Counting looks at every item, so that it is done once for all predictions that came meanwhile, and outside of any transaction
that others wait for.
"""

from datetime import timedelta

from vesta_contracts.datasets.v1 import DatasetScored

from vesta_datasets.store import Store
from vesta_datasets.store.statements import queries

INTERVAL = timedelta(seconds=1)


class Telling:
    """Publishes DatasetScored. Any number of replicas may."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def step(self) -> bool:
        """Tells of every dataset that got predictions since it was told of, at most once a second each."""
        now = self._store.clock.now()
        with self._store.postgres.transaction() as connection:
            rows = queries.list_untold(connection, told_before=now - INTERVAL)
        for row in rows:
            self._tell(row["name"], row["prediction_count"])
        return False

    def _tell(self, dataset: str, prediction_count: int) -> None:
        """Tells of the predictions up to `prediction_count`, unless another replica has."""
        with self._store.postgres.transaction() as connection:
            counts = self._store.datasets.counts(connection, [dataset]).get(dataset)
        if counts is None:
            return  # deleted meanwhile
        scored = DatasetScored(
            dataset=dataset,
            model_version=counts.scored_model_version,
            scored_count=counts.scored_count,
            item_count=counts.item_count,
        )
        with self._store.postgres.transaction() as connection:
            if queries.set_told(connection, name=dataset, told=prediction_count, now=self._store.clock.now()):
                self._store.publish(connection, dataset, scored)
