"""Segments of a search index: up to `SEGMENT_ITEMS_MAX` items with their codes. Pure.

A stored segment never changes: a longer one replaces it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vesta_datasets.search.codes import WORDS, Codes, Floats, encode, project

SEGMENT_ITEMS_MAX: Final = 8192
THRESHOLD_ITEMS_MIN: Final = 512
"""Of fewer embeddings the middle is too uncertain, so that the thresholds of the segment before are used."""
_WORD_BYTES: Final = 8
_ID_WORDS_MAX: Final = 8  # the API limits ids to 63 characters
_MULTIPLIERS: Final = np.arange(1, 2 * _ID_WORDS_MAX, 2, dtype=np.uint64) * np.uint64(0x9E37_79B9_7F4A_7C15)

Ids = NDArray[np.bytes_]
Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Segment:
    """Items with the codes of their embeddings.

    Attributes:
        ids: the last parts of the names of the items, `(N,)`.
        thresholds: `(CODE_BITS,)`.
        codes: `(WORDS, N)`.
    """

    ids: Ids
    thresholds: Floats
    codes: Codes

    @property
    def size_bytes(self) -> int:
        """The memory of the segment."""
        return self.ids.nbytes + self.thresholds.nbytes + self.codes.nbytes


def appended(last: Segment | None, ids: Ids, embeddings: Floats) -> list[Segment]:
    """Returns segments with the items of the last segment and further ones, all full except the last of them.

    Args:
        last: the last segment of the index, if there is one. The first segment that is returned replaces it unless it is full.
        ids: `(N,)`.
        embeddings: `(N, D)`.
    """
    projections = project(embeddings)
    segments = []
    start = 0
    if last is not None and len(last.ids) < SEGMENT_ITEMS_MAX:
        start = SEGMENT_ITEMS_MAX - len(last.ids)
        codes = encode(projections[:start], last.thresholds)
        segments.append(
            Segment(
                np.concatenate([last.ids, ids[:start]]), last.thresholds, np.concatenate([last.codes, codes], axis=1)
            )
        )
    for begin in range(start, len(ids), SEGMENT_ITEMS_MAX):
        part = projections[begin : begin + SEGMENT_ITEMS_MAX]
        if last is None or len(part) >= THRESHOLD_ITEMS_MIN:
            thresholds = part.mean(axis=0, dtype=np.float32)
        else:
            thresholds = last.thresholds
        last = Segment(ids[begin : begin + SEGMENT_ITEMS_MAX], thresholds, encode(part, thresholds))
        segments.append(last)
    return segments


def ids_of(ids: Sequence[bytes]) -> Ids:
    """Returns ids as an array whose elements have a multiple of 8 bytes."""
    width = max((len(one) for one in ids), default=1)
    return np.array(ids, f"S{-(-width // _WORD_BYTES) * _WORD_BYTES}")


def hashes_of(ids: Ids) -> Hashes:
    """Returns a hash of 64 bits of each id, whatever its padding. Of a million ids, two are equal with a probability of 3e-8."""
    words = ids.view(np.uint64).reshape(len(ids), ids.itemsize // _WORD_BYTES)
    found = np.zeros(len(ids), np.uint64)
    for column, multiplier in zip(words.T, _MULTIPLIERS, strict=False):
        found ^= _mixed(column * multiplier)  # of padding: 0
    return found


def _mixed(values: Hashes) -> Hashes:
    """The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), which maps 0 to 0."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    mixed: Hashes = values ^ (values >> np.uint64(31))
    return mixed


def packed(segment: Segment) -> dict[str, bytes]:
    """Returns the columns of a stored segment."""
    return {
        "item_ids": b"\n".join(segment.ids.tolist()),
        "thresholds": segment.thresholds.astype("<f4").tobytes(),
        "codes": segment.codes.astype("<u8").tobytes(),
    }


def unpacked(item_ids: bytes, thresholds: bytes, codes: bytes) -> Segment:
    """Returns the segment of stored columns."""
    ids = ids_of(item_ids.split(b"\n"))
    return Segment(ids, np.frombuffer(thresholds, "<f4"), np.frombuffer(codes, "<u8").reshape(WORDS, len(ids)))
