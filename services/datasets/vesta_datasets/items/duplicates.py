"""Detects near-duplicates by perceptual hash, with an index for candidates.

A 64-bit perceptual hash changes in few bits when an image is re-encoded, resized or slightly retouched. Comparing an item
with every older item does not scale. Candidates are therefore found by multi-index hashing (Norouzi, Punjani and Fleet,
CVPR 2012): the hash is split into four bands of 16 bits, and two hashes that differ in at most r bits have at least one
band that differs in at most r // 4 bits. The store has `bands(hash)` in an indexed integer array and queries the rows whose
array overlaps `probes(hash, radius)`. `near` then compares the hashes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Final

BAND_COUNT: Final = 4
BAND_BITS: Final = 16
DISTANCE_MAX_BITS: Final = 4
"""Items whose hashes differ in at most this many bits are near-duplicates."""
RADIUS_MAX_BITS: Final = 11
"""The largest radius that `probes` supports: 548 probes. Perceptual hashes that differ in more bits are not meaningfully similar."""
SPECIFIC_BITS_MIN: Final = 8
"""A hash with fewer zeros or fewer ones than this comes from an image without structure, such as a black frame, and is ignored."""

_HASH_LIMIT: Final = 1 << (BAND_COUNT * BAND_BITS)
_BAND_LIMIT: Final = 1 << BAND_BITS


@dataclass(frozen=True, slots=True)
class Hashed:
    """An older item that can be a near-duplicate.

    Attributes:
        name: resource name. It ends with a ULID, so that names sort by age.
        perceptual_hash: in `[0, 2**64)`.
    """

    name: str
    perceptual_hash: int


def hamming(hash_a: int, hash_b: int) -> int:
    """Returns the Hamming distance in bits."""
    return (hash_a ^ hash_b).bit_count()


def is_specific(perceptual_hash: int) -> bool:
    """Whether the hash is specific to its image. All images without structure share a few hashes, and are not duplicates of each other."""
    return SPECIFIC_BITS_MIN <= perceptual_hash.bit_count() <= BAND_COUNT * BAND_BITS - SPECIFIC_BITS_MIN


def bands(perceptual_hash: int) -> tuple[int, ...]:
    """Returns the four bands of the hash.

    The bits above the lowest 16 are the position of the band, so that bands of different positions differ. Every
    value is in `[0, 2**18)`, so that the bands fit into one `integer[]` column with one GIN index.

    Raises:
        ValueError: the hash is outside of `[0, 2**64)`.
    """
    if not 0 <= perceptual_hash < _HASH_LIMIT:
        raise ValueError(f"a perceptual hash has 64 bits and no sign, not {perceptual_hash}")
    return tuple(
        position * _BAND_LIMIT + (perceptual_hash >> (position * BAND_BITS)) % _BAND_LIMIT
        for position in range(BAND_COUNT)
    )


def probes(perceptual_hash: int, radius_bits: int) -> tuple[int, ...]:
    """Returns band values. Every hash within `radius_bits` has at least one of them among its bands.

    Empty for a hash that is not specific (`is_specific`), because it has no near-duplicates.

    Raises:
        ValueError: the radius is outside of `[0, RADIUS_MAX_BITS]`.
    """
    if not 0 <= radius_bits <= RADIUS_MAX_BITS:
        raise ValueError(f"the radius must be in [0, {RADIUS_MAX_BITS}] bits, not {radius_bits}")
    if not is_specific(perceptual_hash):
        return ()
    flips = [
        sum(1 << bit for bit in bits)
        for flipped_count in range(radius_bits // BAND_COUNT + 1)
        for bits in combinations(range(BAND_BITS), flipped_count)
    ]
    return tuple(band ^ flip for band in bands(perceptual_hash) for flip in flips)


def near(perceptual_hash: int, candidates: Iterable[Hashed], radius_bits: int) -> list[Hashed]:
    """Returns the candidates that are near-duplicates, nearest first and, at the same distance, oldest first."""
    if not is_specific(perceptual_hash):
        return []
    distances = ((hamming(perceptual_hash, candidate.perceptual_hash), candidate) for candidate in candidates)
    matches = [(distance, candidate.name, candidate) for distance, candidate in distances if distance <= radius_bits]
    return [candidate for _, _, candidate in sorted(matches, key=lambda entry: entry[:2])]


class DuplicateIndex:
    """An in-memory index for the items of a batch, which are not in the database yet."""

    def __init__(self) -> None:
        self._by_band: dict[int, list[Hashed]] = {}

    def add(self, item: Hashed) -> None:
        for band in bands(item.perceptual_hash):
            self._by_band.setdefault(band, []).append(item)

    def near(self, perceptual_hash: int, radius_bits: int) -> list[Hashed]:
        """Returns the added items within the radius, nearest first. The result is exact: the same as that of a scan of all items."""
        bands = probes(perceptual_hash, radius_bits)
        candidates = {item.name: item for band in bands for item in self._by_band.get(band, ())}
        return near(perceptual_hash, candidates.values(), radius_bits)
