"""Publishes the scoring progress of datasets: at most once per interval and dataset, and always with the final counts."""

from datetime import timedelta

from vesta_contracts.datasets.v1 import DatasetScored

from vesta_datasets.store import Store

INTERVAL = timedelta(seconds=1)


class ProgressPublisher:
    """Publishes DatasetScored. Safe to run in any number of replicas."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def step(self) -> bool:
        """Publishes the progress of each dataset that has received predictions since its last event."""
        now = self._store.clock.now()
        with self._store.postgres.transaction() as connection:
            counts = self._store.predictions.list_unpublished(connection, now - INTERVAL)
        for dataset, prediction_count in counts.items():
            self._publish(dataset, prediction_count)
        return False

    def _publish(self, dataset: str, prediction_count: int) -> None:
        """Publishes the progress up to `prediction_count`, unless another replica already has."""
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
            if self._store.predictions.record_published(connection, dataset, prediction_count, self._store.clock.now()):
                self._store.publish(connection, dataset, scored)
