"""Search indexes in PostgreSQL: their segments, and the embeddings that they do not have yet."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from vesta_common.storage.postgres import Connection

from vesta_datasets.search.codes import Floats
from vesta_datasets.search.segments import Ids, Segment, hashes_of, ids_of, packed, unpacked
from vesta_datasets.store.rows import array_of
from vesta_datasets.store.statements import queries
from vesta_datasets.store.vectors import register_vectors

INDEXING_LOCK = 7_305_003  # differs from MIGRATION_LOCK and RELAY_LOCK
CHANGES_AT_ONCE = 4
ITEMS_PER_CHANGE = 1_024  # the triggers have the same number


class StoredIndex(NamedTuple):
    """The stored parts of a search index.

    Attributes:
        numbers: of its segments, ascending.
        pending: names of items with embeddings that no segment has yet.
    """

    numbers: tuple[int, ...]
    pending: list[str]


class EmbeddingChanges(NamedTuple):
    """Embeddings that an index does not have yet.

    Attributes:
        numbers: of the changes.
        items: the names of the items, each once.
    """

    dataset: str
    space: str
    numbers: list[int]
    items: list[str]


class SearchIndexes:
    """The tables of search indexes."""

    def lock(self, connection: Connection) -> bool:
        """Lets no other replica change search indexes until the end of the transaction. Returns False if another one does."""
        return bool(queries.lock_search_indexing(connection, key=INDEXING_LOCK))

    def create(self, connection: Connection, count_min: int) -> None:
        """Creates the missing indexes of datasets with at least so many embeddings in a space. Their items are changes at first."""
        for row in queries.insert_search_indexes(connection, count_min=count_min):
            queries.record_all_embeddings(connection, **row)

    def delete(self, connection: Connection, count_min: int) -> None:
        """Deletes the indexes of datasets with fewer embeddings in a space, and changes without an index."""
        queries.delete_search_indexes(connection, count_min=count_min)
        queries.delete_unindexed_changes(connection)

    def list_changes(self, connection: Connection) -> EmbeddingChanges | None:
        """Returns the first changes of one index; None if there are no changes."""
        rows = queries.list_embedding_changes(connection, limit=CHANGES_AT_ONCE)
        if not rows:
            return None
        items = dict.fromkeys(item for row in rows for item in row["items"])
        return EmbeddingChanges(rows[0]["dataset"], rows[0]["space"], [row["number"] for row in rows], list(items))

    def forget_changes(self, connection: Connection, changes: EmbeddingChanges) -> None:
        """Deletes changes that the index has."""
        queries.delete_embedding_changes(connection, numbers=changes.numbers)

    def read_embeddings(self, connection: Connection, changes: EmbeddingChanges) -> tuple[Ids, Floats]:
        """Returns the ids and embeddings, `(N, D)`, of the items that still exist and have embeddings of the space."""
        register_vectors(connection)
        values = {"items": changes.items, "dataset": changes.dataset, "space": changes.space}
        with connection.cursor(binary=True) as cursor:
            rows = cursor.execute(queries.list_embeddings_of_space.sql, values).fetchall()
        ids = ids_of([_id_of(changes.dataset, row["item"]) for row in rows])
        return ids, np.stack([array_of(row["embedding"]) for row in rows]) if rows else np.zeros((0, 0), np.float32)

    def find_last_segment(self, connection: Connection, dataset: str, space: str) -> tuple[int, Segment] | None:
        """Returns the last segment of an index with its number; None if it has none."""
        row = queries.find_last_segment(connection, dataset=dataset, space=space)
        return (row["number"], _segment(row)) if row else None

    def get_segment(self, connection: Connection, number: int) -> Segment:
        """Returns a segment. Raises LookupError if it does not exist."""
        row = queries.find_segment(connection, number=number)
        if row is None:
            raise LookupError(f"the segment {number} was replaced")
        return _segment(row)

    def insert_segment(self, connection: Connection, dataset: str, space: str, segment: Segment) -> None:
        count = len(segment.ids)
        queries.insert_segment(connection, dataset=dataset, space=space, item_count=count, **packed(segment))

    def delete_segment(self, connection: Connection, number: int) -> None:
        queries.delete_segment(connection, number=number)

    def list_again(self, connection: Connection, margin: int) -> bool:
        """Replaces the oldest segment of an index with many entries of deleted or replaced embeddings by changes, without those entries.

        Returns False if no index has them.

        Args:
            margin: such entries that every index may have.
        """
        bloated = queries.find_bloated_index(connection, margin=margin)
        if bloated is None:
            return False
        oldest, *later = queries.list_segments(connection, **bloated)
        newer = np.concatenate([np.zeros(0, np.uint64), *(hashes_of(_ids(row)) for row in later)])
        ids = _ids(oldest)
        items = names_of(bloated["dataset"], ids[np.isin(hashes_of(ids), newer, invert=True)])
        for start in range(0, len(items), ITEMS_PER_CHANGE):
            queries.record_embedding_changes(connection, **bloated, items=items[start : start + ITEMS_PER_CHANGE])
        queries.delete_segment(connection, number=oldest["number"])
        return True

    def find(self, connection: Connection, dataset: str, space: str, pending_max: int) -> StoredIndex | None:
        """Returns the index of a dataset and space, with at most so many pending items; None if there is no index."""
        row = queries.find_search_index(connection, dataset=dataset, space=space, pending_max=pending_max)
        return StoredIndex(tuple(row["numbers"]), row["pending"]) if row else None


def _ids(row: dict[str, bytes]) -> Ids:
    return ids_of(row["item_ids"].split(b"\n"))


def _segment(row: dict[str, bytes]) -> Segment:
    return unpacked(row["item_ids"], row["thresholds"], row["codes"])


def _id_of(dataset: str, item: str) -> bytes:
    return item.removeprefix(f"{dataset}/items/").encode()


def names_of(dataset: str, ids: Iterable[bytes]) -> list[str]:
    """Returns the names of items by their ids."""
    return [f"{dataset}/items/{one.decode()}" for one in ids]
