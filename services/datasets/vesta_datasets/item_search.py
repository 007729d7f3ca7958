"""Search for the items whose embeddings are nearest to a query.

In a dataset with an index, the codes of the index put candidates in order, and the distances of the first some hundred are computed
exactly; of twice as many, and so on, while the nearest items are hard to tell from others by their codes. Items that the index does not
have yet, and all items of a dataset without an index, are compared exactly.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from vesta_common.storage.postgres import Connection

from vesta_datasets.search.codes import Floats, project_query
from vesta_datasets.search.loaded_index import LoadedIndex, refreshed
from vesta_datasets.search.segments import Segment
from vesta_datasets.store import Store
from vesta_datasets.store.predictions import NearestItems, NearestQuery
from vesta_datasets.store.search_indexes import names_of

WIDENING = 4
"""How many times as many candidates are chosen if more than half of them do not exist any more."""
LATE_SHARE_MAX = 0.025
"""More candidates are compared if a larger share of the nearest items is in the later half of those compared. Each doubling contains
fewer of the nearest items than the one before, so that about as many are missed as are found late, or fewer.
"""


class SearchLimits(NamedTuple):
    """Limits of a search in a dataset with an index.

    Attributes:
        candidates_min: items whose distances are computed exactly, at least.
        candidates_per_neighbour: the same, per item that is returned.
        candidates_growth: how many times as many are compared at most.
        matches_max: if at most so many items match the filter, the nearest of them are found; of more, near items are checked first.
        checked_counts: how many near items are checked, before all items that match are read.
        pending_max: items that the index does not have yet and that are compared.
        cache_bytes: memory of the indexes that were used last, without their files. A larger index is read again for each search.
    """

    candidates_min: int = 96
    candidates_per_neighbour: int = 4
    candidates_growth: int = 6
    matches_max: int = 20_000
    checked_counts: tuple[int, ...] = (2_048, 16_384)
    pending_max: int = 8_192
    cache_bytes: int = 256 * 1024 * 1024


SEARCH_LIMITS = SearchLimits()


class ItemSearch:
    """Searches items. Keeps the indexes that were used last in memory, and in files. Thread-safe.

    Args:
        work_folder: of the files; the system's temporary folder if None.
    """

    def __init__(self, store: Store, limits: SearchLimits = SEARCH_LIMITS, work_folder: Path | None = None) -> None:
        self._store = store
        self._limits = limits
        self._cache = _IndexCache(limits.cache_bytes, work_folder)

    def nearest(self, connection: Connection, query: NearestQuery) -> NearestItems:
        """Returns the items nearest to a vector by cosine distance, nearest first.

        Args:
            connection: in a transaction that sees one state of the database, so that no segment of the index is replaced meanwhile.
        """
        stored = self._store.search_indexes.find(connection, query.dataset, query.space, self._limits.pending_max)
        if stored is None:
            return self._store.predictions.nearest(connection, query)
        read = partial(self._store.search_indexes.get_segment, connection)
        index = self._cache.refreshed((query.dataset, query.space), stored.numbers, read)
        search = _IndexedSearch(self._store, connection, query, index, stored.pending, self._limits)
        return search.nearest() if query.where.condition is None else search.nearest_of_matches()


class _IndexedSearch:
    """One search in a dataset with an index."""

    def __init__(
        self,
        store: Store,
        connection: Connection,
        query: NearestQuery,
        index: LoadedIndex,
        pending: list[str],
        limits: SearchLimits,
    ) -> None:
        self._store = store
        self._connection = connection
        self._query = query
        self._index = index
        self._pending = pending
        self._projection: Floats = project_query(query.vector)
        self._limits = limits
        self._count = max(limits.candidates_min, limits.candidates_per_neighbour * query.limit)
        self._count_max = self._count * limits.candidates_growth
        self._compared: set[str] = set()
        self._found = NearestItems([], 0)

    def nearest(self) -> NearestItems:
        """Searches all items. Chooses more candidates if many of them are deleted."""
        count = self._count_max
        while True:
            candidates = self._candidates(count)
            is_settled = self._compare(candidates)
            if is_settled or len(candidates) < count or 2 * self._found.match_count >= count:
                return self._found
            count *= WIDENING

    def nearest_of_matches(self) -> NearestItems:
        """Searches the items that match the filter: all of them, if they are few; otherwise those that are near."""
        dataset, where, limits = self._query.dataset, self._query.where, self._limits
        matches = self._store.items.list_ids(self._connection, dataset, where, limits.matches_max + 1)
        if len(matches) > limits.matches_max:
            wanted = self._count
            for count in limits.checked_counts:
                names = self._store.items.list_matching(self._connection, self._candidates(count), where, wanted)
                if len(names) == wanted and self._compare(names):
                    return self._found
                wanted = self._count_max
            matches = self._store.items.list_ids(self._connection, dataset, where, None)
        ids: Iterable[bytes] = matches
        if len(matches) > self._count:
            ids = self._index.nearest(self._projection, self._count_max, matches)
        self._compare(names_of(dataset, ids))
        return self._found

    def _candidates(self, count: int) -> list[str]:
        return names_of(self._query.dataset, self._index.nearest(self._projection, count))

    def _compare(self, names: Sequence[str]) -> bool:
        """Compares items in the order of the index until the nearest ones are settled. Returns False if they are not at the end."""
        places = {name: place for place, name in enumerate(names)}
        count = self._count
        while True:
            self._add(names[:count])
            nearest = self._found.neighbours
            late_count = sum(places.get(item.name, 0) >= count // 2 for item, _ in nearest)
            if late_count <= LATE_SHARE_MAX * len(nearest) and 2 * self._found.match_count >= count:
                return True
            if count >= len(names):
                return False
            count *= 2

    def _add(self, names: Sequence[str]) -> None:
        """Computes the distances of those of the items that were not compared yet, and of pending ones the first time."""
        fresh = [name for name in [*names, *self._pending] if name not in self._compared]
        if fresh:
            self._compared.update(fresh)
            added = self._store.predictions.nearest(self._connection, self._query, fresh)
            neighbours = sorted([*self._found.neighbours, *added.neighbours], key=lambda pair: (pair[1], pair[0].name))
            self._found = NearestItems(neighbours[: self._query.limit], self._found.match_count + added.match_count)


class _IndexCache:
    """The indexes that were used last. Thread-safe: one thread loads an index, and the others that need it wait."""

    def __init__(self, bytes_max: int, folder: Path | None) -> None:
        self._bytes_max = bytes_max
        self._folder = folder
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def refreshed(self, key: tuple[str, str], numbers: tuple[int, ...], read: Callable[[int], Segment]) -> LoadedIndex:
        """Returns an index with the segments of these numbers."""
        with self._lock:
            entry = self._entries.setdefault(key, _Entry())
            self._entries.move_to_end(key)
        with entry.loading:
            entry.index = index = refreshed(entry.index, numbers, read, self._folder)
        with self._lock:
            while sum(one.index.size_bytes for one in self._entries.values()) > self._bytes_max:
                self._entries.popitem(last=False)
        return index


@dataclass
class _Entry:
    loading: threading.Lock = field(default_factory=threading.Lock)
    index: LoadedIndex = field(default_factory=LoadedIndex)
