"""Retention: deletes archives one day, and completed operations 30 days, after their creation."""

from datetime import timedelta

from vesta_common.storage.objects import ObjectStore

from vesta_datasets.operations.transfers import ARCHIVES
from vesta_datasets.store import Store

ARCHIVE_RETENTION = timedelta(days=1)
OPERATION_RETENTION = timedelta(days=30)


class Retention:
    """Deletes expired archives and operations. Safe to run in any number of replicas."""

    def __init__(self, store: Store, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects

    def step(self) -> bool:
        """Deletes expired archives and operations. Archives from the day before the oldest pending operation on are kept."""
        now = self._store.clock.now()
        with self._store.postgres.transaction() as connection:
            self._store.operations.delete_completed(connection, now - OPERATION_RETENTION)
            oldest = self._store.operations.oldest_pending_time(connection) or now
        for key in self._objects.list_keys(f"{ARCHIVES}/", before=min(oldest, now) - ARCHIVE_RETENTION):
            self._objects.delete(key)
        return False
