"""Forgets archives a day after they were stored, and operations a month after they were asked for."""

from datetime import timedelta

from vesta_common.storage.objects import ObjectStore

from vesta_datasets.operations.transfers import ARCHIVES
from vesta_datasets.store import Store
from vesta_datasets.store.statements import queries

ARCHIVES_KEPT = timedelta(days=1)
OPERATIONS_KEPT = timedelta(days=30)


class Forgetting:
    """Deletes what nobody waits for any more. Any number of replicas may: what is gone already is no error."""

    def __init__(self, store: Store, objects: ObjectStore) -> None:
        self._store = store
        self._objects = objects

    def step(self) -> bool:
        """Deletes what is too old. An archive that an operation still reads or writes counts as of when that was asked for."""
        now = self._store.clock.now()
        with self._store.postgres.transaction() as connection:
            queries.delete_operations(connection, before=now - OPERATIONS_KEPT)
            oldest = queries.find_oldest_to_do(connection) or now
        for key in self._objects.list_keys(f"{ARCHIVES}/", before=min(oldest, now) - ARCHIVES_KEPT):
            self._objects.delete(key)
        return False
