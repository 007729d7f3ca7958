"""Items are assigned to splits by content, never change their split, and share it with near-duplicates."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from vesta_datasets.items.duplicates import DuplicateIndex, Hashed, hamming
from vesta_datasets.items.splits import Placed, Placement, Shares, Split, place, split_of

SHARES = Shares(validation=0.1, test=0.2)
TRAIN_SHA256 = "f" * 64
TEST_SHA256 = "0" * 64


def sha256(number):
    return hashlib.sha256(str(number).encode()).hexdigest()


def test_shares_hold_over_many_items():
    dealt = [split_of(sha256(number), SHARES) for number in range(20_000)]
    assert dealt.count(Split.TEST) / 20_000 == pytest.approx(0.2, abs=0.01)
    assert dealt.count(Split.VALIDATION) / 20_000 == pytest.approx(0.1, abs=0.01)


def test_without_shares_all_items_are_in_the_training_split():
    assert {split_of(sha256(number), Shares(0.0, 0.0)) for number in range(500)} == {Split.TRAIN}


@pytest.mark.parametrize(("validation", "test"), [(-0.1, 0.1), (0.1, -0.1), (0.5, 0.5), (float("nan"), 0.1)])
def test_shares_without_a_training_split_are_rejected(validation, test):
    with pytest.raises(ValueError, match="below 1"):
        Shares(validation, test)


def test_a_new_image_starts_a_group_in_the_split_of_its_hash():
    assert place("a", TEST_SHA256, [], SHARES) == Placement(Split.TEST, group="a")


def test_a_requested_split_is_applied():
    assert place("a", TEST_SHA256, [], SHARES, requested=Split.TRAIN) == Placement(Split.TRAIN, group="a")


def test_a_near_duplicate_joins_the_group_and_split_of_the_older_item():
    placement = place("b", TRAIN_SHA256, [Placed("a", "a", Split.TEST)], SHARES)
    assert placement == Placement(Split.TEST, group="a", duplicate_of="a")


def test_the_split_of_the_group_overrides_the_requested_one():
    placement = place("b", TRAIN_SHA256, [Placed("a", "a", Split.TEST)], SHARES, requested=Split.TRAIN)
    assert placement == Placement(Split.TEST, group="a", duplicate_of="a")


def test_a_near_duplicate_of_two_splits_is_marked():
    placement = place("c", TRAIN_SHA256, [Placed("b", "b", Split.TRAIN), Placed("a", "a", Split.TEST)], SHARES)
    assert placement == Placement(Split.TRAIN, group="b", duplicate_of="b", straddles=True)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0x0123456789ABCDEF, 0xFEDCBA9876543210]),
            st.lists(st.integers(0, 15), max_size=6),
            st.sampled_from([None, *Split]),
        ),
        max_size=25,
    )
)
def test_no_two_unmarked_near_duplicates_are_in_different_splits(arrivals):
    radius_bits = 4
    index, placed, hashes = DuplicateIndex(), {}, {}
    for number, (perceptual_hash, bits, asked) in enumerate(arrivals):
        name = f"items/{number:03}"
        for bit in bits:
            perceptual_hash ^= 1 << bit
        older = [item.name for item in index.near(perceptual_hash, radius_bits)]
        duplicates = [Placed(other, placed[other].group, placed[other].split) for other in older]
        placed[name] = place(name, sha256(number), duplicates, SHARES, asked)
        hashes[name] = perceptual_hash
        index.add(Hashed(name, perceptual_hash))
    for placement in placed.values():
        assert placed[placement.group].split == placement.split
    taking_part = [name for name, placement in placed.items() if not placement.straddles]
    for one in taking_part:
        for other in taking_part:
            if hamming(hashes[one], hashes[other]) <= radius_bits:
                assert placed[one].split == placed[other].split
