"""Adds new embeddings to the search indexes, in the background."""

from vesta_common.storage.postgres import Connection

from vesta_datasets.search.segments import SEGMENT_ITEMS_MAX, Segment, appended
from vesta_datasets.store import Store
from vesta_datasets.store.search_indexes import ITEMS_PER_CHANGE, EmbeddingChanges

INDEXED_MIN = 2_000
"""A dataset with fewer embeddings has no index: all are compared exactly."""


class SearchIndexer:
    """Maintains the search indexes. Safe to run in any number of replicas: one works at a time."""

    def __init__(self, store: Store, indexed_min: int = INDEXED_MIN) -> None:
        self._store = store
        self._indexed_min = indexed_min

    def step(self) -> bool:
        """Adds some thousand embeddings to an index, in one transaction. Returns whether there may be more.

        If all are added, removes entries of deleted embeddings from an index with many.
        """
        indexes = self._store.search_indexes
        with self._store.postgres.transaction() as connection:
            if not indexes.lock(connection):
                return False
            indexes.create(connection, self._indexed_min)
            indexes.delete(connection, self._indexed_min // 2)
            changes = indexes.list_changes(connection)
            if changes is None:
                return indexes.list_again(connection, self._indexed_min)
            self._add(connection, changes)
            return True

    def _add(self, connection: Connection, changes: EmbeddingChanges) -> None:
        """Adds embeddings, of which some are in memory at a time."""
        indexes = self._store.search_indexes
        number, last = indexes.find_last_segment(connection, changes.dataset, changes.space) or (0, None)
        segments: list[Segment] = []
        for start in range(0, len(changes.items), ITEMS_PER_CHANGE):
            part = changes._replace(items=changes.items[start : start + ITEMS_PER_CHANGE])
            ids, embeddings = indexes.read_embeddings(connection, part)
            if len(ids):
                added = appended(segments[-1] if segments else last, ids, embeddings)
                if segments and len(segments[-1].ids) < SEGMENT_ITEMS_MAX:
                    segments.pop()  # the first one that was added replaces it
                segments += added
        if segments and last is not None and len(last.ids) < SEGMENT_ITEMS_MAX:
            indexes.delete_segment(connection, number)
        for segment in segments:
            indexes.insert_segment(connection, changes.dataset, changes.space, segment)
        indexes.forget_changes(connection, changes)
