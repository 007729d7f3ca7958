"""The index finds the same near-duplicates as a scan."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_datasets.items.duplicates import (
    BAND_BITS,
    BAND_COUNT,
    RADIUS_MAX_BITS,
    DuplicateIndex,
    Hashed,
    bands,
    hamming,
    is_specific,
    near,
    probes,
)

hashes = st.integers(0, 2**64 - 1)
specific_hashes = hashes.filter(is_specific)
flips = st.lists(st.integers(0, 63), unique=True, max_size=RADIUS_MAX_BITS)


def flipped(perceptual_hash, bits):
    for bit in bits:
        perceptual_hash ^= 1 << bit
    return perceptual_hash


@given(specific_hashes, flips)
def test_hashes_within_the_radius_share_a_probe(perceptual_hash, bits):
    other = flipped(perceptual_hash, bits)
    assert hamming(perceptual_hash, other) == len(bits)
    assert set(probes(perceptual_hash, len(bits))) & set(bands(other))


@given(specific_hashes, st.lists(flips, max_size=20), st.integers(0, RADIUS_MAX_BITS))
def test_the_index_finds_the_same_as_a_scan(perceptual_hash, changes, radius_bits):
    items = [Hashed(f"items/{n:02}", flipped(perceptual_hash, bits)) for n, bits in enumerate(changes)]
    index = DuplicateIndex()
    for item in items:
        index.add(item)
    assert index.near(perceptual_hash, radius_bits) == near(perceptual_hash, items, radius_bits)


@given(hashes)
def test_bands_of_different_positions_never_match(perceptual_hash):
    positions = [band >> BAND_BITS for band in bands(perceptual_hash)]
    assert positions == list(range(BAND_COUNT))


@pytest.mark.parametrize(
    ("radius_bits", "count"), [(0, 4), (3, 4), (4, 4 * 17), (7, 4 * 17), (8, 4 * 137), (11, 4 * 137)]
)
def test_probes_grow_with_the_radius(radius_bits, count):
    assert len(set(probes(0x0123456789ABCDEF, radius_bits))) == count


def test_the_nearest_duplicate_comes_first_and_the_oldest_of_equals():
    base = 0x0123456789ABCDEF
    far, young, old = Hashed("c", base ^ 0b111), Hashed("b", base ^ 0b1), Hashed("a", base ^ 0b10)
    assert near(base, [far, young, old], 3) == [old, young, far]


@pytest.mark.parametrize("structureless", [0, 1, 2**63, 2**64 - 1])
def test_images_without_structure_are_no_duplicates(structureless):
    index = DuplicateIndex()
    index.add(Hashed("black", structureless))
    assert index.near(structureless, 4) == []
    assert near(structureless, [Hashed("black", structureless)], 4) == []


@pytest.mark.parametrize("out_of_range", [-1, 2**64])
def test_a_hash_of_another_length_is_rejected(out_of_range):
    with pytest.raises(ValueError, match="64 bits"):
        bands(out_of_range)


@pytest.mark.parametrize("radius_bits", [-1, RADIUS_MAX_BITS + 1])
def test_a_radius_out_of_range_is_rejected(radius_bits):
    with pytest.raises(ValueError, match="radius"):
        probes(0x0123456789ABCDEF, radius_bits)
