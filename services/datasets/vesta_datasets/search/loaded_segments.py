"""Segments that searches use: in memory, or in a file of which only the first words of the codes are in memory.

A search compares the first words of all codes, and the rest of some thousand. The file is mapped and has no name, so that it ends with its
last segment. Its pages belong to the page cache of the kernel, which takes them back when memory is short.
"""

import mmap
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np

from vesta_datasets.search.codes import WORDS, Codes
from vesta_datasets.search.segments import Segment

COARSE_WORDS: Final = 3


@dataclass(frozen=True)
class LoadedSegment(Segment):
    """A segment for searches.

    Attributes:
        coarse: the first words of the codes, `(COARSE_WORDS, N)`, in memory.
        mapping: of the file with the ids and the codes; None if they are in memory.
        start: of the first page of the segment in the file.
    """

    coarse: Codes
    mapping: mmap.mmap | None = None
    start: int = 0

    @classmethod
    def in_memory(cls, segment: Segment) -> Self:
        """Returns the segment, with its arrays as they are."""
        return cls(segment.ids, segment.thresholds, segment.codes, segment.codes[:COARSE_WORDS])

    @property
    def size_bytes(self) -> int:
        """The memory of the segment, without the file."""
        return super().size_bytes if self.mapping is None else self.thresholds.nbytes + self.coarse.nbytes

    def release(self) -> None:
        """Leaves the pages that were read from the file to the page cache. Running searches map again what they read."""
        if self.mapping is not None:
            self.mapping.madvise(mmap.MADV_DONTNEED, self.start, self.ids.nbytes + self.codes.nbytes)


def in_a_file(segments: Iterable[Segment], folder: Path | None) -> list[LoadedSegment]:
    """Writes segments to a new file, one at a time.

    Args:
        folder: of the file, created if missing; the system's temporary folder if None.

    Raises:
        OSError: the file cannot be written.
    """
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    places = []
    with tempfile.TemporaryFile(dir=folder, prefix="vesta-search-") as file:
        for segment in segments:
            file.seek(-(-file.tell() // mmap.PAGESIZE) * mmap.PAGESIZE)
            places.append((file.tell(), segment.ids.dtype, segment.thresholds, segment.codes[:COARSE_WORDS].copy()))
            file.write(np.ascontiguousarray(segment.codes.T).data)  # the words of an item side by side
            file.write(segment.ids.view(np.uint8).data)
        file.flush()
        mapping = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    loaded = []
    for start, id_type, thresholds, coarse in places:
        count = coarse.shape[1]
        codes = np.frombuffer(mapping, np.uint64, count * WORDS, start).reshape(count, WORDS)
        ids = np.frombuffer(mapping, id_type, count, start + codes.nbytes)
        loaded.append(LoadedSegment(ids, thresholds, codes.T, coarse, mapping, start))
    return loaded
