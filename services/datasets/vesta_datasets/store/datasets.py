"""Datasets in PostgreSQL, with their counts."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from vesta_common.clock import Clock
from vesta_common.media.task_types import known_task_type
from vesta_common.resources.etags import with_etag
from vesta_common.resources.methods import body_of, existing, resource_of
from vesta_common.resources.names import parent_of
from vesta_common.storage.postgres import Connection
from vesta_contracts.datasets.v1 import Dataset, DatasetCounts

from vesta_datasets.store.statements import queries

TERMS_PER_ITEM = 10  # whose deletion takes about the time of the deletion of an item


class Datasets:
    """The table of datasets."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def insert(self, connection: Connection, dataset: Dataset) -> None:
        """Inserts a dataset. Raises psycopg.errors.UniqueViolation or ForeignKeyViolation."""
        queries.insert_dataset(
            connection,
            name=dataset.name,
            parent=parent_of(dataset.name),
            taxonomy=dataset.taxonomy,
            body=body_of(dataset, "counts"),
            now=self._clock.now(),
        )

    def get(self, connection: Connection, name: str, *, lock: bool = False, counted: bool = True) -> Dataset:
        """Returns a dataset, with its counts if `counted`. Raises NotFound."""
        find = queries.lock_dataset if lock else queries.find_dataset
        row = existing(find(connection, name=name), name)
        return _dataset(row, self.counts(connection, [name])[name] if counted else None)

    def list_page(self, connection: Connection, parent: str, after: str, limit: int) -> list[Dataset]:
        """Lists the datasets of a project whose names are greater than `after`, ordered by name."""
        rows = list(queries.list_datasets(connection, parent=parent, after=after, limit=limit))
        counts = self.counts(connection, [row["name"] for row in rows])
        return [_dataset(row, counts[row["name"]]) for row in rows]

    def update(self, connection: Connection, dataset: Dataset) -> None:
        queries.update_dataset(
            connection,
            name=dataset.name,
            body=body_of(dataset, "counts"),
            taxonomy=dataset.taxonomy,
            now=self._clock.now(),
        )

    def delete(self, connection: Connection, name: str) -> None:
        """Deletes a dataset with its snapshots. Its items cannot be read any more, and `purge` deletes them."""
        queries.insert_deleted_dataset(connection, name=name, now=self._clock.now())
        queries.delete_dataset(connection, name=name)

    def is_being_purged(self, connection: Connection, name: str) -> bool:
        """Whether a deleted dataset of this name still has items."""
        return bool(queries.is_being_purged(connection, name=name))

    def purge(self, connection: Connection, name: str, limit: int) -> bool:
        """Deletes up to `limit` items of a deleted dataset; of the next one that has items if `name` is empty.

        Returns:
            False if there is nothing to do.
        """
        found = queries.lock_purge(connection, name=name) if name else queries.claim_purge(connection)
        if found is None:
            return False
        dataset = found["name"]
        rows = queries.list_purgeable(connection, dataset=dataset, after=found["purged_until"], limit=limit)
        if items := [row["name"] for row in rows]:
            queries.purge_items(connection, names=items)
            queries.set_purged_until(connection, dataset=dataset, last_item=items[-1])
        elif not queries.purge_terms(connection, dataset=dataset, limit=TERMS_PER_ITEM * limit):
            queries.set_purged(connection, dataset=dataset)
        return True

    def list_deleted(self, connection: Connection, before: datetime) -> dict[str, datetime]:
        """Returns when each dataset was deleted that was deleted before a time, and whose name is not in use."""
        return {row["name"]: row["delete_time"] for row in queries.list_deleted_datasets(connection, before=before)}

    def forget_deleted(self, connection: Connection, name: str, delete_time: datetime) -> None:
        """Removes a dataset from `list_deleted`."""
        queries.forget_deleted_dataset(connection, name=name, delete_time=delete_time)

    def counts(self, connection: Connection, names: Sequence[str]) -> dict[str, DatasetCounts]:
        """Returns the counts of the datasets. Scores are counted only if they are from the model version that scored the dataset last."""
        rows = queries.count_items(connection, datasets=list(names))
        return {row.pop("dataset"): DatasetCounts(**row) for row in rows}

    def list_unfolded(self, connection: Connection, changes_min: int) -> list[str]:
        """Returns the datasets whose counts consist of at least so many changes."""
        return [row["dataset"] for row in queries.list_unfolded(connection, changes_min=changes_min)]

    def fold_counts(self, connection: Connection, name: str) -> None:
        """Replaces the changes of the counts of a dataset by their sums. Never waits for another transaction."""
        queries.fold_item_counts(connection, dataset=name)
        queries.fold_embedding_counts(connection, dataset=name)

    def used_labels(self, connection: Connection, name: str) -> set[str]:
        """Returns the concepts that items of the dataset have."""
        return {row["label"] for row in queries.list_dataset_labels(connection, dataset=name)}

    def find_scored_by(self, connection: Connection, name: str) -> str:
        """Returns the model version that scored a dataset last; empty if none has."""
        row = queries.find_dataset(connection, name=name)
        return row["scored_by"] if row else ""


def _dataset(row: Mapping[str, Any], counts: DatasetCounts | None) -> Dataset:
    dataset = resource_of(Dataset, row)
    # The dataset may be older than these fields.
    if not dataset.split_policy.HasField("test_share"):
        dataset.split_policy.test_share = 0.0
    dataset.task_type = known_task_type(dataset.task_type)
    with_etag(dataset)
    if counts is not None:
        dataset.counts.CopyFrom(counts)
    return dataset
