"""Datasets in PostgreSQL, and how much each holds."""

from collections.abc import Mapping, Sequence
from typing import Any

from vesta_common.clock import Clock
from vesta_common.resources.methods import body_of, existing, resource_of
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection
from vesta_contracts.datasets.v1 import Dataset, DatasetCounts

from vesta_datasets.store.statements import queries


class Datasets:
    """The table of datasets."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def insert(self, connection: Connection, dataset: Dataset) -> None:
        """Keeps a new dataset. Raises psycopg.errors.UniqueViolation or ForeignKeyViolation."""
        queries.insert_dataset(
            connection,
            name=dataset.name,
            parent=parent_of(dataset.name),
            taxonomy=dataset.taxonomy,
            body=body_of(dataset, "counts"),
            now=self._clock.now(),
        )

    def get(self, connection: Connection, name: str, *, lock: bool = False, counted: bool = True) -> Dataset:
        """A dataset, with its counts where they are wanted. Raises NotFound."""
        find = queries.lock_dataset if lock else queries.find_dataset
        row = existing(find(connection, name=name), name)
        return _dataset(row, self.counts(connection, [name])[name] if counted else None)

    def list_page(self, connection: Connection, parent: str, after: str, limit: int) -> list[Dataset]:
        """A project's datasets after a name, by name."""
        rows = list(queries.list_datasets(connection, parent=parent, after=after, limit=limit))
        counts = self.counts(connection, [row["name"] for row in rows])
        return [_dataset(row, counts[row["name"]]) for row in rows]

    def update(self, connection: Connection, dataset: Dataset) -> None:
        """Keeps a changed dataset."""
        queries.update_dataset(
            connection,
            name=dataset.name,
            body=body_of(dataset, "counts"),
            taxonomy=dataset.taxonomy,
            now=self._clock.now(),
        )

    def delete(self, connection: Connection, name: str) -> None:
        """Removes a dataset with its items and snapshots."""
        queries.delete_dataset(connection, name=name)

    def counts(self, connection: Connection, names: Sequence[str]) -> dict[str, DatasetCounts]:
        """How much each of these datasets holds; scores are counted of the model version that scored it last."""
        rows = queries.count_items(connection, datasets=list(names))
        return {row.pop("dataset"): DatasetCounts(**row) for row in rows}

    def borne_labels(self, connection: Connection, name: str) -> set[str]:
        """Concepts that items of the dataset bear."""
        return {row["label"] for row in queries.list_borne_labels(connection, dataset=name)}

    def find_scored_by(self, connection: Connection, name: str) -> str:
        """The model version that scored a dataset last; empty where none did."""
        row = queries.find_dataset(connection, name=name)
        return row["scored_by"] if row else ""


def _dataset(row: Mapping[str, Any], counts: DatasetCounts | None) -> Dataset:
    dataset = resource_of(Dataset, row)
    if not dataset.split_policy.HasField("test_share"):  # of a dataset that is older than the default
        dataset.split_policy.test_share = 0.0
    if counts is not None:
        dataset.counts.CopyFrom(counts)
    return dataset
