"""Retention: deletes archives one day, and completed operations 30 days, after their creation; and objects of deleted datasets."""

from datetime import datetime, timedelta

from vesta_common.media.large_annotations import annotation_folder
from vesta_common.storage.objects import ObjectStore

from vesta_datasets.operations.transfers import ARCHIVES
from vesta_datasets.snapshot_writer import manifest_folder
from vesta_datasets.store import Store

ARCHIVE_RETENTION = timedelta(days=1)
DATASET_RETENTION = timedelta(days=1)
"""How long the manifests and large annotations of a deleted dataset are kept: training runs and exports that have started can complete."""
OPERATION_RETENTION = timedelta(days=30)


class Retention:
    """Deletes expired archives, operations and manifests. Safe to run in any number of replicas."""

    def __init__(self, store: Store, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects

    def step(self) -> bool:
        """Deletes what has expired. Archives from the day before the oldest pending operation on are kept."""
        now = self._store.clock.now()
        with self._store.postgres.transaction() as connection:
            self._store.snapshots.merge_changes(connection)
            self._store.operations.delete_completed(connection, now - OPERATION_RETENTION)
            oldest = self._store.operations.oldest_pending_time(connection) or now
        for key in self._objects.list_keys(f"{ARCHIVES}/", before=min(oldest, now) - ARCHIVE_RETENTION):
            self._objects.delete(key)
        self._delete_objects(now - DATASET_RETENTION)
        return False

    def _delete_objects(self, before: datetime) -> None:
        """Deletes the objects of datasets that were deleted before a time. No other dataset refers to them."""
        with self._store.postgres.transaction() as connection:
            deleted = self._store.datasets.list_deleted(connection, before)
        for dataset, delete_time in deleted.items():
            # Objects that are not older belong to a dataset that was created with the same name in the meantime.
            for folder in (manifest_folder(dataset), annotation_folder(dataset)):
                for key in self._objects.list_keys(f"{folder}/", before=delete_time):
                    self._objects.delete(key)
            with self._store.postgres.transaction() as connection:
                self._store.datasets.forget_deleted(connection, dataset, delete_time)
