"""A loaded search index: segments, and the search for the codes nearest to that of a query."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import structlog
from numpy.typing import NDArray

from vesta_datasets.search.codes import WORDS, Codes, Floats, distances, encode, similarities
from vesta_datasets.search.loaded_segments import COARSE_WORDS, LoadedSegment, in_a_file
from vesta_datasets.search.segments import SEGMENT_ITEMS_MAX, Hashes, Ids, Segment, hashes_of

COARSE_FACTOR: Final = 4
"""The most similar items are chosen among this many times as many with the fewest differing bits."""
UNSORTED_MAX: Final = 65_536
"""Items whose hashes are compared one by one, and whose segments are in memory. If there are more, the hashes of all items are sorted
again, and full segments are written to a file.
"""

Positions = NDArray[np.intp]

log = structlog.get_logger()


class SortedHashes(NamedTuple):
    """The hashes of the items of the first segments, in order.

    Attributes:
        numbers: of the segments.
        positions: of the item of each hash, counted from the first item of the first segment.
    """

    numbers: tuple[int, ...]
    hashes: Hashes
    positions: NDArray[np.uint32]


class _Part(NamedTuple):
    """Some items of one segment.

    Attributes:
        place: of the segment among the segments.
        own: the places of the items among all items.
        offsets: of the items in the segment.
    """

    place: int
    segment: LoadedSegment
    own: slice
    offsets: Positions


_NO_HASHES: Final = SortedHashes((), np.zeros(0, np.uint64), np.zeros(0, np.uint32))


@dataclass(frozen=True)
class LoadedIndex:
    """The segments of a dataset and embedding space. An item may be in several: the last one has its current code.

    Attributes:
        numbers: of the stored segments, ascending.
        segments: one per number.
        table: for the search by id.
    """

    numbers: tuple[int, ...] = ()
    segments: tuple[LoadedSegment, ...] = ()
    table: SortedHashes = _NO_HASHES

    @cached_property
    def starts(self) -> Positions:
        """The position of the first item of each segment, and the count of items."""
        return np.cumsum([0, *(len(segment.ids) for segment in self.segments)])

    @property
    def count(self) -> int:
        """The number of items."""
        return int(self.starts[-1])

    @property
    def size_bytes(self) -> int:
        """The memory of the index, without its files."""
        return self.table.hashes.nbytes + self.table.positions.nbytes + sum(one.size_bytes for one in self.segments)

    def nearest(self, projection: Floats, count: int, among: Ids | None = None) -> list[bytes]:
        """Returns the ids of the items whose codes are the most similar to a query, the most similar first.

        The number of differing bits chooses `COARSE_FACTOR` times as many items: the bits of the coarse words among all items, all bits
        among given ones.

        Args:
            projection: the projected query, `(CODE_BITS,)`.
            among: the items that may be returned; all if None.
        """
        query_codes = self._queries(projection)
        if among is None:
            positions = _nearest(self._coarse_distances(query_codes), count * COARSE_FACTOR)
        else:
            positions = self._positions_of(among)
            positions = positions[_nearest(self._distances(query_codes, positions), count * COARSE_FACTOR)]
        near = self._similarities(projection, positions)
        if len(positions) > count:
            chosen = np.sort(np.argpartition(-near, count)[:count])
            positions, near = positions[chosen], near[chosen]
        ids = self._ids(positions)
        return [ids[place] for place in np.argsort(-near, kind="stable").tolist()]

    def _queries(self, projection: Floats) -> Codes:
        """Returns the code of the query for the thresholds of each segment, `(WORDS, S)`."""
        codes = [encode(projection[None], segment.thresholds) for segment in self.segments]
        return np.concatenate([np.zeros((WORDS, 0), np.uint64), *codes], axis=1)

    def _coarse_distances(self, query_codes: Codes) -> NDArray[np.uint16]:
        """Returns the distances of all items by the coarse words."""
        far = np.empty(self.count, np.uint16)
        for index, segment in enumerate(self.segments):
            own = slice(self.starts[index], self.starts[index + 1])
            far[own] = distances(segment.coarse, query_codes[:COARSE_WORDS, index : index + 1])
        return far

    def _distances(self, query_codes: Codes, positions: Positions) -> NDArray[np.uint16]:
        """Returns the distances of the items at ascending positions."""
        far = np.empty(len(positions), np.uint16)
        for part in self._parts(positions):
            far[part.own] = distances(part.segment.codes[:, part.offsets], query_codes[:, part.place : part.place + 1])
        return far

    def _similarities(self, projection: Floats, positions: Positions) -> Floats:
        """Returns the similarities of the items at ascending positions, comparable between segments."""
        near = np.empty(len(positions), np.float32)
        for part in self._parts(positions):
            weights = projection - part.segment.thresholds
            codes = part.segment.codes[:, part.offsets]
            near[part.own] = similarities(codes, weights / (np.linalg.norm(weights) or 1))
        return near

    def _ids(self, positions: Positions) -> list[bytes]:
        """Returns the ids of the items at ascending positions."""
        return [one for part in self._parts(positions) for one in part.segment.ids[part.offsets].tolist()]

    def _parts(self, positions: Positions) -> Iterator["_Part"]:
        """Yields the segments of the items at ascending positions. Releases each before the next one."""
        bounds = np.searchsorted(positions, self.starts)
        for index in np.flatnonzero(np.diff(bounds)).tolist():
            own = slice(bounds[index], bounds[index + 1])
            segment = self.segments[index]
            yield _Part(index, segment, own, positions[own] - self.starts[index])
            segment.release()

    def _positions_of(self, ids: Ids) -> Positions:
        """Returns the ascending positions of the ids that the index has, once each."""
        wanted = np.sort(hashes_of(ids))
        wanted = wanted[np.diff(wanted, prepend=~wanted[:1]) != 0]
        found = []
        if len(self.table.hashes):
            places = np.searchsorted(self.table.hashes, wanted, "right") - 1  # the last of equal ones
            found.append(self.table.positions[places[self.table.hashes[places] == wanted]].astype(np.intp))
        for index in range(len(self.table.numbers), len(self.segments)):
            hashes = hashes_of(self.segments[index].ids)
            places = np.minimum(np.searchsorted(wanted, hashes), len(wanted) - 1)
            found.append(np.flatnonzero(wanted[places] == hashes) + self.starts[index])
        return np.sort(np.concatenate(found)) if found else np.zeros(0, np.intp)


def _nearest(far: NDArray[np.uint16], count: int) -> Positions:
    """Returns the ascending positions of at least `count` smallest distances; of all if there are fewer."""
    if len(far) <= count:
        return np.arange(len(far))
    bound = np.partition(far, count - 1)[count - 1]  # the distance of the last of the nearest
    return np.flatnonzero(far <= bound)


def refreshed(
    loaded: LoadedIndex,
    numbers: Sequence[int],
    read: Callable[[int], Segment],
    folder: Path | None = None,
    unsorted_max: int = UNSORTED_MAX,
) -> LoadedIndex:
    """Returns the index with the segments of these numbers. Reads those that are not loaded.

    Args:
        numbers: ascending.
        read: returns a stored segment.
        folder: of the files; the system's temporary folder if None.
    """
    if loaded.numbers == tuple(numbers):
        return loaded
    segments = _segments(loaded, numbers, read, folder, unsorted_max)
    covered = loaded.table.numbers
    table = loaded.table if covered == tuple(numbers[: len(covered)]) else _NO_HASHES
    if sum(len(segment.ids) for segment in segments[len(table.numbers) :]) > unsorted_max:
        table = _sorted_hashes(numbers[:-1], segments[:-1])  # the last one will be replaced
    return LoadedIndex(tuple(numbers), segments, table)


def _segments(
    loaded: LoadedIndex, numbers: Sequence[int], read: Callable[[int], Segment], folder: Path | None, unsorted_max: int
) -> tuple[LoadedSegment, ...]:
    """Returns the segments of these numbers. Many that are in no file are written to one, but for the last, which will be replaced."""
    known = dict(zip(loaded.numbers, loaded.segments, strict=True))
    unfiled = [number for number in numbers[:-1] if number not in known or known[number].mapping is None]
    if len(unfiled) * SEGMENT_ITEMS_MAX > unsorted_max:
        try:
            written = in_a_file((known.get(number) or read(number) for number in unfiled), folder)
            known.update(zip(unfiled, written, strict=True))
        except OSError as error:
            log.warning("search_index_in_memory", error=str(error))
    return tuple(known.get(number) or LoadedSegment.in_memory(read(number)) for number in numbers)


def _sorted_hashes(numbers: Sequence[int], segments: Sequence[LoadedSegment]) -> SortedHashes:
    found = []
    for segment in segments:
        found.append(hashes_of(segment.ids))
        segment.release()
    hashes = np.concatenate(found)
    positions = np.argsort(hashes, kind="stable")
    return SortedHashes(tuple(numbers), hashes[positions], positions.astype(np.uint32))
