"""Near-duplicates by perceptual hash: how to tell them, and how to find candidates with an index.

A 64-bit perceptual hash changes in few bits when an image is re-encoded, resized or slightly retouched. Comparing with
every older item does not scale, so candidates come from multi-index hashing (Norouzi, Punjani and Fleet, CVPR 2012):
cut the hash into four bands of 16 bits; two hashes that differ in at most r bits have at least one band that differs
in at most r // 4. The store keeps `bands(hash)` in an indexed integer array and asks for rows whose array overlaps
`probes(hash, radius)`; `near` then decides.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from typing import Final

BAND_COUNT: Final = 4
BAND_BITS: Final = 16
DISTANCE_MAX_BITS: Final = 4
"""Hashes that differ in at most this many bits count as near-duplicates."""
RADIUS_MAX_BITS: Final = 11
"""The widest search `probes` answers: 548 probes. Beyond it, perceptual hashes mean little anyway."""
TELLING_BITS_MIN: Final = 8
"""A hash with fewer bits of one kind comes from a picture without structure, such as a black frame, and says nothing."""

_HASH_LIMIT: Final = 1 << (BAND_COUNT * BAND_BITS)
_BAND_LIMIT: Final = 1 << BAND_BITS


@dataclass(frozen=True, slots=True)
class Hashed:
    """An older item that may be a near-duplicate.

    `name` is its resource name, `perceptual_hash` in `[0, 2**64)`. Names are ULIDs at heart: they sort by age.
    """

    name: str
    perceptual_hash: int


def hamming(hash_a: int, hash_b: int) -> int:
    """How many of the 64 bits differ."""
    return (hash_a ^ hash_b).bit_count()


def is_telling(perceptual_hash: int) -> bool:
    """Whether the hash says anything: structureless pictures all share a few hashes and are no duplicates for it."""
    return TELLING_BITS_MIN <= perceptual_hash.bit_count() <= BAND_COUNT * BAND_BITS - TELLING_BITS_MIN


def bands(perceptual_hash: int) -> tuple[int, ...]:
    """The hash's four bands, each with its position above its 16 bits, so that bands of different positions differ.

    Every value is in `[0, 2**18)`: kept in one `integer[]` under one GIN index.

    Raises:
        ValueError: the hash is outside `[0, 2**64)`.
    """
    if not 0 <= perceptual_hash < _HASH_LIMIT:
        raise ValueError(f"a perceptual hash has 64 bits and no sign, not {perceptual_hash}")
    return tuple(
        position * _BAND_LIMIT + (perceptual_hash >> (position * BAND_BITS)) % _BAND_LIMIT
        for position in range(BAND_COUNT)
    )


def probes(perceptual_hash: int, radius_bits: int) -> tuple[int, ...]:
    """Every band value that some hash within `radius_bits` must bear in at least one of its bands.

    Empty for a hash that says nothing: it has no near-duplicates.

    Raises:
        ValueError: the radius is outside `[0, RADIUS_MAX_BITS]`.
    """
    if not 0 <= radius_bits <= RADIUS_MAX_BITS:
        raise ValueError(f"the radius must be in [0, {RADIUS_MAX_BITS}] bits, not {radius_bits}")
    if not is_telling(perceptual_hash):
        return ()
    flips = [
        sum(1 << bit for bit in bits)
        for flipped_count in range(radius_bits // BAND_COUNT + 1)
        for bits in combinations(range(BAND_BITS), flipped_count)
    ]
    return tuple(band ^ flip for band in bands(perceptual_hash) for flip in flips)


def near(perceptual_hash: int, candidates: Iterable[Hashed], radius_bits: int) -> list[Hashed]:
    """The candidates that are near-duplicates, nearest first, the oldest first among equals."""
    if not is_telling(perceptual_hash):
        return []
    distances = ((hamming(perceptual_hash, candidate.perceptual_hash), candidate) for candidate in candidates)
    found = [(distance, candidate.name, candidate) for distance, candidate in distances if distance <= radius_bits]
    return [candidate for _, _, candidate in sorted(found, key=lambda entry: entry[:2])]


class DuplicateIndex:
    """The same search in memory: for the items of one batch, that the store does not know yet."""

    def __init__(self) -> None:
        self._by_band: dict[int, list[Hashed]] = {}

    def add(self, item: Hashed) -> None:
        """Makes an item findable."""
        for band in bands(item.perceptual_hash):
            self._by_band.setdefault(band, []).append(item)

    def near(self, perceptual_hash: int, radius_bits: int) -> list[Hashed]:
        """All items added within the radius, nearest first. Finds exactly what a scan of all items would find."""
        wanted = probes(perceptual_hash, radius_bits)
        candidates = {item.name: item for band in wanted for item in self._by_band.get(band, ())}
        return near(perceptual_hash, candidates.values(), radius_bits)
